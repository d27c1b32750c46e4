"""Pretrained checkpoints as towers: an encoder, and how its own vectors come about.

Nothing here knows an architecture by name. A dual encoder's rule (which state it pools, which of its layers projects)
is the one of a few candidates that gives the numbers of its own `get_text_features` and `get_image_features`.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForTextEncoding, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from smar.core.errors import InputError
from smar.core.sections.model import ModelSettings
from smar.model.checkpoint import is_pair, load_tokenizer, pinned, pretrained_config, refuse_single
from smar.model.part import Head, Part
from smar.model.sentence_folder import Sentences, read_sentences
from smar.model.towers import ImageTower, TextTower, Tower, optional_pooler

LONGEST = 512
"""Tokens kept of a text at most where nobody says otherwise; some encoders could take thousands."""
PROBE = ("red dress for women", "shoe", "a long blue cotton shirt with sleeves")
_SAME = 1e-5


@dataclass(frozen=True)
class _Loaded:
    """A checkpoint as transformers loads it."""

    name: str
    model: Any
    missing: frozenset[str]
    modules: Sentences = field(default_factory=Sentences)

    @property
    def is_pair(self) -> bool:
        return is_pair(self.model)

    def part(self, encoder: Any, head: Head, projection: nn.Module, **more: Any) -> Part:
        """An encoder of this checkpoint with its share of the missing weights."""
        where = next((f"{name}." for name, module in self.model.named_children() if module is encoder), "")
        missing = frozenset(key.removeprefix(where) for key in self.missing if key.startswith(where))
        return Part(
            self.name, encoder, replace(head, encoder=type(encoder).__name__, kept=True), projection, missing, **more
        )


def load_parts(settings: ModelSettings, image_size: int) -> dict[str, Part]:
    """The pretrained encoders of a model by tower, each checkpoint read once.

    Raises:
        InputError: one cannot be read, or cannot serve as a tower; the message says what is missing.
    """
    refuse_single(settings)
    loaded: dict[tuple[str, bool], _Loaded] = {}
    made: dict[tuple[str, bool], Part] = {}
    without = {"dpsr": "image_tower", "dpsr-i": "text_tower"}.get(settings.kind)
    for tower, own in settings.towers.items():
        if not own.pretrained or tower == without:
            continue
        text = tower != "image_tower"
        key = (own.pretrained, text and type(pretrained_config(own.pretrained)) in MODEL_FOR_TEXT_ENCODING_MAPPING)
        if key not in loaded:
            loaded[key] = _load(*key)
        if (own.pretrained, text) not in made:
            with torch.no_grad():
                part = text_part(loaded[key]) if text else image_part(loaded[key], image_size)
            made[own.pretrained, text] = part
    return {
        tower: made[own.pretrained, tower != "image_tower"]
        for tower, own in settings.towers.items()
        if own.pretrained and tower != without
    }


def _load(name: str, text_encoding: bool) -> _Loaded:
    """A checkpoint in float32. Never a pickle."""
    source, revision = pinned(name)
    auto = AutoModelForTextEncoding if text_encoding else AutoModel
    options = {"use_safetensors": True, "output_loading_info": True, "dtype": torch.float32, "trust_remote_code": False}
    try:
        model, info = auto.from_pretrained(source, revision=revision, attn_implementation="eager", **options)
    except OSError as error:
        raise InputError(
            f"the weights of {name} cannot be read ({error}). Only safetensors are: a pytorch_model.bin is "
            "a pickle, which may run code. Where you trust it, convert it once, in Python with transformers: "
            f"AutoModel.from_pretrained({source!r}).save_pretrained(FOLDER), and copy its tokenizer's files there."
        ) from None
    except (ImportError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} cannot be loaded as an encoder: {error}") from None
    return _Loaded(name, model.eval(), frozenset(info["missing_keys"]), read_sentences(source, revision))


def text_part(loaded: _Loaded) -> Part:
    """The text encoder of a checkpoint, with the vectors that it would give by itself."""
    tokenizer = load_tokenizer(loaded.name)
    encoder = _encoder(loaded, "input_ids", "reads text")
    most = _most_tokens(encoder)
    own = min(loaded.modules.length or most, tokenizer.model_max_length, most)
    more: dict[str, Any] = {"length": min(own, LONGEST), "most": most, "prompts": loaded.modules.prompts}
    if loaded.is_pair:
        more |= _scale(loaded.model)
    ids, mask = _tokens(tokenizer, more["length"])
    states = _run(loaded, lambda: encoder(input_ids=ids, attention_mask=mask)).last_hidden_state
    eos = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    head = Head("mean", states.shape[-1], states.shape[-1], eos=-1 if eos is None else eos)
    if loaded.is_pair:
        head, wanted = _own_text_features(loaded, tokenizer, head, more["length"])
        return loaded.part(*_rule(loaded, encoder, head, wanted, lambda tower: tower(ids, mask)[1]), **more)
    modules = loaded.modules
    pooling = modules.pooling or _text_pooling(loaded, encoder, ids, mask)
    pooled = encoder(input_ids=ids, attention_mask=mask).pooler_output if pooling == "pooler" else states
    head = replace(head, pooling=pooling, pooled=pooled.shape[-1], layers=modules.layers)
    return loaded.part(encoder, head, modules.projection, **more)


def image_part(loaded: _Loaded, image_size: int) -> Part:
    """The vision encoder of a checkpoint, with the vectors that it would give by itself."""
    encoder = _encoder(loaded, "pixel_values", "sees pictures")
    takes = inspect.signature(encoder.forward).parameters
    patch = encoder.config.patch_size if "spatial_shapes" in takes else 0
    expected = getattr(encoder.config, "image_size", image_size)
    if isinstance(expected, int) and expected != image_size:
        raise InputError(
            f"{loaded.name} expects pictures of {expected} pixels, the dataset has {image_size}: prepare with "
            f"data.image_size={expected}."
        )
    if patch and image_size % patch:
        raise InputError(
            f"{loaded.name} cuts pictures into squares of {patch} pixels: prepare with a multiple of it as "
            "data.image_size."
        )
    pixels = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    tower = ImageTower(None, Head("mean", 8, 8, patch=patch), encoder=encoder)
    output = _run(loaded, lambda: encoder(**tower._inputs(pixels)))
    states = _run(loaded, lambda: tower.patches(pixels))
    head = Head("mean", states.shape[-1], states.shape[-1], patch=patch)
    if loaded.is_pair:
        wanted = _features(loaded.model.get_image_features(**tower._inputs(pixels)))
        found = _rule(loaded, encoder, head, wanted, lambda tower: tower(pixels)[1])
        return loaded.part(*found)
    pooler = getattr(output, "pooler_output", None)
    own = pooler is not None and not optional_pooler(type(encoder)) and pooler.flatten(1).shape[1] == head.states
    return loaded.part(encoder, replace(head, pooling="pooler" if own else "mean"), nn.Identity())


def _encoder(loaded: _Loaded, takes: str, does: str) -> Any:
    """The model itself, or of several parts the one that takes this input."""
    parts = [module for module in loaded.model.children() if isinstance(module, PreTrainedModel)]
    composed = loaded.is_pair or any(hasattr(loaded.model.config, f"{kind}_config") for kind in ("text", "vision"))
    for module in parts if composed else [loaded.model]:
        if takes in inspect.signature(module.forward).parameters:
            return module
    raise InputError(f"no part of {loaded.name} ({type(loaded.model).__name__}) {does}: none takes {takes} alone.")


def _run(loaded: _Loaded, call: Callable[[], Any]) -> Any:
    """Encode a first batch; what goes wrong is told before anything is trained."""
    try:
        return call()
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(
            f"{loaded.name} ({type(loaded.model).__name__}) cannot serve as a tower: encoding a first batch gives "
            f"{type(error).__name__}: {error}"
        ) from None


def _tokens(tokenizer: Any, length: int, more: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask of the probe, cut to `length` and padded on the right by `more` tokens beyond the longest."""
    lists = [tokenizer(text, truncation=True, max_length=length)["input_ids"] for text in PROBE]
    longest = max(map(len, lists)) + more
    ids = [ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids in lists]
    return torch.tensor(ids), torch.tensor([[1] * len(x) + [0] * (longest - len(x)) for x in lists])


def _most_tokens(encoder: Any) -> int:
    """Tokens that the encoder has places for."""
    most = 1 << 20
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in (
            "position_embeddings",
            "position_embedding",
        ):
            before = 0 if module.padding_idx is None else module.padding_idx + 1
            most = min(most, module.num_embeddings - before)
    return most


def _text_pooling(loaded: _Loaded, encoder: Any, ids: Tensor, mask: Tensor) -> str:
    """Pooling of a text encoder that says nothing of it: its inherent pooler, or the last token where it is causal."""
    output = encoder(input_ids=ids, attention_mask=mask)
    if getattr(output, "pooler_output", None) is not None and not optional_pooler(type(encoder)):
        return "pooler"
    first = encoder(input_ids=ids[:, :1], attention_mask=mask[:, :1]).last_hidden_state[:, 0]
    return "last" if torch.allclose(first, output.last_hidden_state[:, 0], atol=_SAME) else "mean"


def _features(output: Any) -> Tensor:
    """Own features [n, k] as unit vectors, whatever they are wrapped in."""
    return functional.normalize(output if isinstance(output, Tensor) else output.pooler_output, dim=-1)


def _own_text_features(loaded: _Loaded, tokenizer: Any, head: Head, length: int) -> tuple[Head, Tensor]:
    """The probe's own features, and the head that feeds the encoder as it was trained.

    Where padding behind a text changes its vector, texts are filled up to the full length, as the tokenizer does it.
    """
    model, (ids, mask), (wide, seen) = loaded.model, *(_tokens(tokenizer, length - 1, more) for more in (0, 1))
    own = _features(model.get_text_features(input_ids=ids, attention_mask=mask))
    if torch.allclose(own, _features(model.get_text_features(input_ids=wide, attention_mask=seen)), atol=_SAME):
        ids, mask = _tokens(tokenizer, length)
        return head, _features(model.get_text_features(input_ids=ids, attention_mask=mask))
    tokens = tokenizer(list(PROBE), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    head = replace(
        head,
        pad_to=length,
        pad=tokenizer.pad_token_id,
        pad_left=tokenizer.padding_side == "left",
        masked="attention_mask" in tokens,
    )
    given = {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}
    return head, _features(model.get_text_features(**given))


def _rule(
    loaded: _Loaded, encoder: Any, head: Head, wanted: Tensor, pool: Callable[[Any], Tensor]
) -> tuple[Any, Head, nn.Module]:
    """Encoder, head and projection that give the features `wanted`; `pool` asks a tower for pooled states."""
    make = ImageTower if "pixel_values" in inspect.signature(encoder.forward).parameters else TextTower
    for pooling in ("pooler", "cls", "mean", "last", "eos"):
        tower: Tower = make(None, replace(head, pooling=pooling), encoder=encoder)
        try:
            pooled = pool(tower)
        except AttributeError:
            pooled = None
        if pooled is None:  # there is no pooler
            continue
        for layer in _projections(loaded.model, pooled.shape[-1]):
            if layer(pooled).shape == wanted.shape and torch.allclose(
                functional.normalize(layer(pooled), dim=-1), wanted, atol=_SAME
            ):
                layers = ((layer.out_features, layer.bias is not None, ""),) if isinstance(layer, nn.Linear) else ()
                return encoder, replace(head, pooling=pooling, pooled=pooled.shape[-1], layers=layers), layer
        if make is ImageTower and pooling == "mean":
            break
    raise InputError(
        f"how {loaded.name} ({type(loaded.model).__name__}) makes its own features is none of the rules that a tower "
        "knows: pooler, first, last or mean state, and one linear projection or none."
    )


def _projections(model: Any, width: int) -> Iterator[nn.Module]:
    yield from (layer for layer in model.children() if isinstance(layer, nn.Linear) and layer.in_features == width)
    yield nn.Identity()


def _scale(model: Any) -> dict[str, float]:
    """Temperature and logit bias of a pair, which transformers stores as log scale and bias, or as a temperature."""
    scale, plain = getattr(model, "logit_scale", None), getattr(model, "temperature", None)
    bias = getattr(model, "logit_bias", None)
    out = {} if bias is None else {"logit_bias": float(bias)}
    if scale is not None:
        return {**out, "temperature": math.exp(-float(scale))}
    return {**out, "temperature": float(plain)} if isinstance(plain, Tensor) else out
