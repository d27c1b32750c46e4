"""Checkpoints by name: what lies under it, before any weight is read."""

from pathlib import Path
from typing import Any

from transformers import MODEL_MAPPING, AutoConfig, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING
from transformers.utils import cached_file

from smar.core.errors import InputError
from smar.core.sections.model import ModelSettings
from smar.model.spm import converted


def pinned(name: str) -> tuple[str, str | None]:
    """Folder or hub name, and the revision that ``NAME@REVISION`` asks for; a hub's unpinned name may change."""
    source, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
    return source, revision or None


def pretrained_config(name: str) -> Any:
    """Configuration of a pretrained encoder or of a two-tower checkpoint such as CLIP's.

    Raises:
        InputError: nothing can be loaded under this name or path, or it is no encoder.
    """
    source, revision = pinned(name)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        hint = open_clip_hint(name) or "Give a local folder or a hub name."
        raise InputError(f"no pretrained encoder under {name!r}: {error}. {hint}") from None
    if config.is_encoder_decoder and type(config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        raise InputError(
            f"{name!r} is an encoder-decoder ({config.model_type}): a tower needs an encoder alone, "
            "such as BERT, MiniLM or DistilBERT for text and ViT, CLIP or ResNet for pictures."
        )
    return config


def open_clip_hint(name: str) -> str:
    """What to do about a checkpoint that transformers does not read, if open_clip saved it; "" if it did not."""
    source, revision = pinned(name)
    absent = {f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")}
    try:
        found = cached_file(source, "open_clip_config.json", revision=revision, **absent)
    except (OSError, ValueError):  # no such folder, and no name of a hub's
        found = None
    if found is None:
        return ""
    return (
        f"{name} holds open_clip_config.json: a checkpoint in open_clip's own layout, whose weights transformers does "
        "not read. Name one in transformers' layout, whose config.json says model_type clip or siglip: many "
        "repositories have both, such as laion/CLIP-ViT-B-32-laion2B-s34B-b79K, others have a twin, such as "
        "google/siglip-base-patch16-224."
    )


def refuse_single(settings: ModelSettings) -> None:
    """Raises InputError where `model.pretrained` names no dual encoder."""
    if settings.pretrained is None:
        return
    known = MODEL_MAPPING.get(type(pretrained_config(settings.pretrained)), None)
    if not is_pair(known):
        raise InputError(
            "model.pretrained takes a dual encoder, which has text and image features of its own, such as CLIP or "
            f"SigLIP; {settings.pretrained} ({getattr(known, '__name__', 'of an unknown class')}) has not. An encoder "
            "of one kind goes to model.query.pretrained and model.text.pretrained, or to model.vision.pretrained."
        )


def is_pair(model: Any) -> bool:
    """Whether a model, or its class, has text and image features of its own."""
    return all(hasattr(model, f"get_{kind}_features") for kind in ("text", "image"))


def load_tokenizer(name: str) -> Any:
    """A checkpoint's own tokenizer.

    Raises:
        InputError: there is none, or none that works without Python, as the exported query tower needs it.
    """
    source, revision = pinned(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"the tokenizer of {name} cannot be loaded: {error}") from None
    fast = tokenizer if getattr(tokenizer, "is_fast", False) else converted(tokenizer)
    if fast is None:
        raise InputError(
            f"the tokenizer of {name} ({type(tokenizer).__name__}) runs in Python only, and the query tower is served "
            "without it: save it as tokenizer.json (a tokenizer of the tokenizers library) beside the weights."
        )
    if fast.pad_token_id is None:
        fast.pad_token = fast.eos_token or fast.unk_token
    return fast
