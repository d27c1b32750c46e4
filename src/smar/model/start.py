"""A model before any training: fresh, or from pretrained checkpoints."""

from torch import nn

from smar.errors import InputError
from smar.model.configuration import build_config
from smar.model.modeling import SmarModel
from smar.model.pretrained import Part, load_parts
from smar.model.processing import SmarProcessor
from smar.model.towers import Tower
from smar.sections.model import ModelSettings
from smar.settings import Settings


def new_model(settings: Settings, model: ModelSettings, processor: SmarProcessor) -> SmarModel:
    """Fresh model; towers named in the settings start from their pretrained weights, frozen where asked.

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
    built = SmarModel._from_config(config, attn_implementation="eager")
    for name, part in parts.items():
        _fill(getattr(built, name), part)
    if config.residual and model.kind == "smar":
        nn.init.zeros_(built.multimodal_projection.weight)
        nn.init.zeros_(built.multimodal_projection.bias)
    freeze(built, model)
    return built  # type: ignore[no-any-return]


def _fill(tower: Tower, part: Part) -> None:
    """Give a tower the checkpoint's weights: its encoder, unless another tower has it, and the projection it kept."""
    if not isinstance(tower.encoder, nn.Identity):
        own = tower.encoder.load_state_dict(part.encoder.state_dict(), strict=False)
        missing = [*own.missing_keys, *(part.missing & tower.encoder.state_dict().keys())]
        if missing:
            raise InputError(f"{part.source} lacks weights of its own architecture: {', '.join(missing[:5])}.")
    if tower.head.layers == part.head.layers:
        tower.projection.load_state_dict(part.projection.state_dict())


def freeze(built: SmarModel, model: ModelSettings, image: bool = False) -> None:
    """Train every encoder but those that the settings freeze, and the image encoder if `image`; loading forgets it."""
    for name, tower in model.towers.items():
        if hasattr(built, name):
            frozen = bool(tower.pretrained and tower.frozen) or (image and name == "image_tower")
            getattr(built, name).encoder.requires_grad_(not frozen)
