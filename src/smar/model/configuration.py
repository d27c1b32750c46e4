"""`SmarConfig`: two text towers, one vision tower and how they meet, composed like CLIP's configuration."""

from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, BertConfig, PreTrainedConfig, ResNetConfig, ViTConfig
from transformers.configuration_utils import SubConfigSpec

from smar.errors import InputError
from smar.sections.losses import LossSettings
from smar.sections.model import FusionName, Kind, ModelSettings, Pooling, TowerSettings, VisionSettings


@strict
class SmarConfig(PreTrainedConfig):  # type: ignore[misc]
    """Configuration of SMAR and of its baselines (reference: paper.md, "Model").

    `kind` is `smar`, `dpsr` (query and item-text tower), `dpsr-i` (query and item-image tower) or `clip` (all three
    towers, added up instead of fused). `fusion` names a class of `smar.model.fusion.FUSIONS`. `dim` is k.
    `threshold` is the image probability above which a routing service asks the pictures. `category_share`: P(category)
    of an item-side gate, with "" for every other category; None where the gate asks the query.
    """

    model_type = "smar"
    sub_configs_defaults = {
        "query_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="vit"),
    }

    query_config: PreTrainedConfig | dict[str, Any] | None = None
    text_config: PreTrainedConfig | dict[str, Any] | None = None
    vision_config: PreTrainedConfig | dict[str, Any] | None = None
    kind: Kind = "smar"
    dim: int = 128
    pooling: Pooling = "cls"
    share_text: bool = False
    fusion: FusionName = "cross"
    fusion_layers: int = 1
    image_adapter: int = 0
    query_length: int = 30
    text_length: int = 100
    text_fields: list[str] | None = None
    modality_dropout: float = 0.1
    temperature: float = 1 / 30
    learn_temperature: bool = False
    temperature_bounds: list[float] | None = None
    matryoshka: list[int] | None = None
    threshold: float = 0.5
    category_share: dict[str, float] | None = None
    initializer_range: float = 0.02


def build_config(
    settings: ModelSettings,
    image_size: int,
    vocabulary: int,
    text_fields: tuple[str, ...],
    temperature: float,
    loss: LossSettings = LossSettings(),
) -> SmarConfig:
    """Configuration for `settings`: towers given by name or path keep their own, the others are made fresh."""
    return SmarConfig(
        query_config=_text_config(settings.query, vocabulary),
        text_config=_text_config(settings.text, vocabulary),
        vision_config=_vision_config(settings.vision, image_size),
        kind=settings.kind,
        dim=settings.dim,
        pooling=settings.pooling,
        share_text=settings.share_text,
        fusion=settings.fusion,
        fusion_layers=settings.fusion_layers,
        image_adapter=settings.vision.adapter,
        query_length=settings.query_length,
        text_length=settings.text_length,
        text_fields=list(text_fields),
        modality_dropout=settings.modality_dropout,
        temperature=temperature,
        learn_temperature=loss.learn_temperature,
        temperature_bounds=list(loss.temperature_bounds),
        matryoshka=list(settings.matryoshka),
    )


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
        config = AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(f"no pretrained encoder under {name!r}: {error}. Give a local folder or a hub name.") from None
    if config.is_encoder_decoder:
        raise InputError(
            f"{name!r} is an encoder-decoder ({config.model_type}): a tower needs an encoder alone, "
            "such as BERT, MiniLM or DistilBERT for text and ViT, CLIP or ResNet for pictures."
        )
    return config


def _text_config(tower: TowerSettings, vocabulary: int) -> dict[str, Any]:
    if tower.pretrained:
        config = pretrained_config(tower.pretrained)
        return getattr(config, "text_config", config).to_dict()  # type: ignore[no-any-return]
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=tower.hidden,
        num_hidden_layers=tower.layers,
        num_attention_heads=tower.heads,
        intermediate_size=4 * tower.hidden,
        max_position_embeddings=128,
        hidden_dropout_prob=tower.dropout,
        attention_probs_dropout_prob=tower.dropout,
        initializer_range=tower.init,
    )
    return config.to_dict()  # type: ignore[no-any-return]


def _vision_config(tower: VisionSettings, image_size: int) -> dict[str, Any]:
    if tower.pretrained:
        config = pretrained_config(tower.pretrained)
        return getattr(config, "vision_config", config).to_dict()  # type: ignore[no-any-return]
    if tower.kind == "resnet":
        widths = [tower.hidden // 2 ** (tower.stages - 1 - stage) for stage in range(tower.stages)]
        depths = [tower.layers] * len(widths)
        config = ResNetConfig(embedding_size=widths[0], hidden_sizes=widths, depths=depths, layer_type="basic")
    else:
        config = ViTConfig(
            hidden_size=tower.hidden,
            num_hidden_layers=tower.layers,
            num_attention_heads=tower.heads,
            intermediate_size=4 * tower.hidden,
            image_size=image_size,
            patch_size=tower.patch,
            hidden_dropout_prob=tower.dropout,
            attention_probs_dropout_prob=tower.dropout,
            initializer_range=tower.init,
        )
    return config.to_dict()  # type: ignore[no-any-return]
