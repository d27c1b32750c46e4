"""A model before any training: fresh, or from pretrained checkpoints."""

import hashlib
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from smar.core.errors import InputError
from smar.core.sections.data import DataSettings
from smar.core.sections.model import ModelSettings
from smar.core.settings import Settings
from smar.model.bag import is_bag
from smar.model.checkpoint import open_clip_hint
from smar.model.configuration import SmarConfig, build_config
from smar.model.encoder import Encoder
from smar.model.framing import read_framing
from smar.model.layers import add_adapters, train_last
from smar.model.modeling import SmarModel
from smar.model.part import Part
from smar.model.pretrained import load_parts
from smar.model.processing import SmarProcessor
from smar.model.run_folder import finished_stages, run_settings
from smar.model.towers import Tower

SECTIONS = {"query_tower": "query", "text_tower": "text", "image_tower": "vision"}


def new_model(settings: Settings, model: ModelSettings, processor: SmarProcessor) -> SmarModel:
    """Fresh model; towers named in the settings start from their pretrained weights.

    Raises:
        InputError: a pretrained encoder expects another picture size, or cannot serve as a tower.
    """
    parts, tokenizer = load_parts(model, settings.data.image_size), processor.tokenizer
    config = build_config(
        model,
        settings.data.image_size,
        len(tokenizer),
        settings.data.text_fields,
        settings.train.temperature,
        settings.train.loss,
        parts,
        tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id,
    )
    config.image_fit, config.image_resample = settings.data.image_fit, settings.data.image_resample
    built = SmarModel._from_config(config, attn_implementation="eager")
    for name, part in parts.items():
        _fill(getattr(built, name), part)
    _begin_alike(built)
    if config.residual and model.kind == "smar":
        nn.init.zeros_(built.multimodal_projection.weight)
        nn.init.zeros_(built.multimodal_projection.bias)
    return built  # type: ignore[no-any-return]


def _begin_alike(built: SmarModel) -> None:
    """Fresh bags of queries and of items get one table and one projection, so that equal words are alike."""
    if not all(is_bag(getattr(built.config, f"{name}_config")) for name in ("query", "text")):
        return
    query, text = built.query_tower, getattr(built, "text_tower", None)
    assert isinstance(query.projection, nn.Linear)
    nn.init.orthogonal_(query.projection.weight)
    if text is not None:
        text.projection.load_state_dict(query.projection.state_dict())
        if not built.config.share_text:
            text.encoder.load_state_dict(query.encoder.state_dict())


def start_notes(model: ModelSettings, config: SmarConfig, data: DataSettings) -> list[str]:
    """What someone should know of a start from pretrained weights: cut lengths, lost vectors, other pictures."""
    if not any(tower.pretrained for tower in model.towers.values()):
        return []
    notes = [f"queries of {config.query_length} tokens, items of {config.text_length}"]
    for name, asked, taken in (
        ("query_length", model.query_length, config.query_length),
        ("text_length", model.text_length, config.text_length),
    ):
        if asked and asked > taken:
            notes[0] += f" (model.{name} is {asked}, the encoder has places for {taken})"
    towers = {"query_tower": "queries", "text_tower": "item texts", "image_tower": "pictures"}
    for name, what in towers.items():
        if model.towers[name].pretrained and name in (config.heads or {}) and not config.head(name).kept:
            notes.append(f"{what} have a fresh projection to {config.dim} numbers, not the checkpoint's own vectors")
    vision = model.towers["image_tower"].pretrained
    if "image_tower" in (config.heads or {}) and vision:
        with suppress(InputError):  # a finished run whose checkpoint is gone: it was said when the run was trained
            note = read_framing(vision).note(vision, data)
            notes += [note] if note else []
    return notes


def _fill(tower: Tower, part: Part) -> None:
    """Give a tower the checkpoint's weights: its encoder, unless another tower has it, and the projection it kept."""
    if not isinstance(tower.encoder, nn.Identity):
        own = tower.encoder.load_state_dict(part.encoder.state_dict(), strict=False)
        missing = [*own.missing_keys, *(part.missing & tower.encoder.state_dict().keys())]
        if missing:
            hint = open_clip_hint(part.source)
            raise InputError(f"{part.source} lacks weights of its own architecture: {', '.join(missing[:5])}. {hint}")
    if tower.head.kept:
        tower.projection.load_state_dict(part.projection.state_dict())


def freeze(built: SmarModel, model: ModelSettings, image: bool = False) -> None:
    """Train every encoder but those that the settings freeze, and the image encoder if `image`; loading forgets it.

    Of others the settings name the last layers, or adapters that stand for the whole.

    Raises:
        InputError: an encoder has not the layers.
    """
    for name, tower in model.towers.items():
        encoder = getattr(getattr(built, name, None), "encoder", None)
        if encoder is None or isinstance(encoder, nn.Identity):  # another tower's, or no such tower
            continue
        frozen, key = tower.frozen or (image and name == "image_tower"), f"model.{SECTIONS[name]}"
        encoder.requires_grad_(not frozen)
        if tower.unfreeze_last and not frozen:
            train_last(encoder, tower.unfreeze_last, key)
        elif tower.lora and not frozen:
            add_adapters(encoder, tower.lora, key)


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over the names and bytes of a module's weights and statistics."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def start_digest(built: SmarModel, model: ModelSettings) -> str | None:
    """SHA-256 of the pretrained encoders of an untrained model; None where there are none."""
    towers = [getattr(built, name) for name, own in model.towers.items() if own.pretrained and hasattr(built, name)]
    digests = [weights_digest(tower.encoder) for tower in towers]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else None


def load_start(run: Path, baseline: str | None = None) -> Encoder | None:
    """A run's own model, or a baseline, before its first step, made of its checkpoints again; None: it had none.

    Raises:
        InputError: a checkpoint is gone, or is another than the model began from.
    """
    settings, folder = run_settings(run), run
    if baseline is not None:
        folder = run / "baselines" / baseline
        settings = settings.of_baseline(next(own for own in settings.train.baselines if own.label == baseline))
    first = next(stage for stage in finished_stages(run) if stage.kind == (baseline or settings.model.kind))
    if first.start is None:
        return None
    processor = SmarProcessor.from_pretrained(folder / first.stage)
    torch.manual_seed(settings.train.seed)
    model = new_model(settings, settings.model, processor)
    if start_digest(model, settings.model) != first.start:
        names = sorted({str(tower.pretrained) for tower in settings.model.towers.values() if tower.pretrained})
        raise InputError(f"{' and '.join(names)} holds other weights than the model began from.")
    return Encoder(model, processor, bf16=settings.train.bf16)


def start_key(encoder: Encoder) -> str:
    """What the vectors of an untrained model depend on: equal keys, equal vectors."""
    model, config = encoder.model, encoder.config
    towers = [part for part in model.children() if isinstance(part, Tower)]
    weights = [*towers] if config.residual or config.kind == "dpsr" else [model]  # else a random fusion has its say
    texts = (config.query_length, config.text_length, config.query_prefix, config.item_prefix)
    return repr((config.kind, config.residual, config.heads, texts, [weights_digest(part) for part in weights]))
