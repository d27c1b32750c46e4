"""`SmarConfig`: two text towers, one vision tower and how they meet, composed like CLIP's configuration."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, BertConfig, PreTrainedConfig, ResNetConfig, ViTConfig
from transformers.configuration_utils import SubConfigSpec

from smar.errors import InputError
from smar.settings import ModelSettings, TowerSettings, VisionSettings

KINDS = ("smar", "dpsr", "dpsr-i")


@strict
class SmarConfig(PreTrainedConfig):  # type: ignore[misc]
    """Configuration of SMAR and of its baselines (reference: paper.md, "Model").

    `kind` is `smar`, `dpsr` (query and item-text tower) or `dpsr-i` (query and item-image tower). `dim` is k.
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
    kind: str = "smar"
    dim: int = 128
    pooling: str = "cls"
    share_text: bool = False
    fusion_layers: int = 1
    query_length: int = 30
    text_length: int = 100
    text_fields: list[str] | None = None
    modality_dropout: float = 0.1
    temperature: float = 1 / 30
    threshold: float = 0.5
    category_share: dict[str, float] | None = None
    initializer_range: float = 0.02


def build_config(
    settings: ModelSettings,
    image_size: int,
    vocabulary: int,
    text_fields: tuple[str, ...],
    temperature: float,
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
        fusion_layers=settings.fusion_layers,
        query_length=settings.query_length,
        text_length=settings.text_length,
        text_fields=list(text_fields),
        modality_dropout=settings.modality_dropout,
        temperature=temperature,
    )


def pretrained_config(name: str) -> Any:
    """Configuration of a pretrained encoder; a two-tower checkpoint such as CLIP's gives its vision part.

    Raises:
        InputError: nothing can be loaded under this name or path.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"no pretrained encoder under {name!r}: {error}. Give a local folder or a hub name.") from None
    return config


def _text_config(tower: TowerSettings, vocabulary: int) -> dict[str, Any]:
    if tower.pretrained:
        return pretrained_config(tower.pretrained).to_dict()  # type: ignore[no-any-return]
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
        widths = [tower.hidden // 4, tower.hidden // 2, tower.hidden]
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
