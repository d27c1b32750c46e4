"""Encoders that a fresh tower may have: what makes the configuration of one, by the name that the settings give it."""

from collections.abc import Callable
from typing import Literal, TypeVar

from transformers import AutoConfig, AutoModel, BertConfig, PreTrainedConfig, PreTrainedModel, ResNetConfig, ViTConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from smar.core.errors import InputError
from smar.core.registry import IMAGE_ENCODERS, TEXT_ENCODERS
from smar.core.sections.model import TextSettings, VisionSettings
from smar.model.bag import BagConfig

_FEWEST_CHANNELS = 16

E = TypeVar("E", bound=type[PreTrainedModel])


def register_encoder(name: str, reads: Literal["text", "pictures"]) -> Callable[[E], E]:
    """Decorator: the class is what ``model.text.kind`` and ``model.query.kind``, or ``model.vision.kind``, build.

    The class is a `transformers.PreTrainedModel` with its own `config_class` and `model_type`. Its static method
    ``fresh(tower, vocabulary, length)`` (text), or ``fresh(tower, image_size)`` (pictures), makes a configuration of
    the tower's settings. It is called with ``input_ids`` and ``attention_mask`` [n, t], or ``pixel_values``
    [n, 3, s, s], and its ``last_hidden_state`` is [n, t, tower.hidden], or a map [n, tower.hidden, h, w].

    >>> from transformers import PreTrainedConfig, PreTrainedModel
    >>> class MyConfig(PreTrainedConfig):
    ...     model_type = "my_encoder"
    >>> @register_encoder("my-encoder", reads="text")
    ... class MyEncoder(PreTrainedModel):
    ...     config_class = MyConfig
    ...     @staticmethod
    ...     def fresh(tower, vocabulary, length):
    ...         return MyConfig(vocab_size=vocabulary, hidden_size=tower.hidden)

    Raises:
        InputError: the name is taken, or `model_type` is one of transformers' own.
    """

    def add(encoder: E) -> E:
        config = encoder.config_class
        if not config.model_type or config.model_type in CONFIG_MAPPING_NAMES:
            raise InputError(
                f"{encoder.__name__}.config_class needs a model_type of its own, not {config.model_type!r}."
            )
        registry.register(name)(encoder.fresh)
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, encoder, exist_ok=True)
        return encoder

    registry = TEXT_ENCODERS if reads == "text" else IMAGE_ENCODERS
    return add


def bert(tower: TextSettings, vocabulary: int, length: int) -> PreTrainedConfig:
    """BERT with `layers` layers."""
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=tower.hidden,
        num_hidden_layers=tower.layers,
        num_attention_heads=tower.heads,
        intermediate_size=4 * tower.hidden,
        max_position_embeddings=max(128, length),
        hidden_dropout_prob=tower.dropout,
        attention_probs_dropout_prob=tower.dropout,
        initializer_range=tower.init,
    )


def bag(tower: TextSettings, vocabulary: int, length: int) -> PreTrainedConfig:
    """A bag of tokens."""
    return BagConfig(vocab_size=vocabulary, hidden_size=tower.hidden, hidden_dropout_prob=tower.dropout)


def resnet(tower: VisionSettings, image_size: int) -> PreTrainedConfig:
    """Convolutional stages of `layers` blocks each, up to `hidden` channels."""
    # with several threads the backward pass of torch 2.13's convolutions of 8 channels damages the heap
    least = min(_FEWEST_CHANNELS, tower.hidden)
    widths = [max(tower.hidden // 2 ** (tower.stages - 1 - stage), least) for stage in range(tower.stages)]
    depths = [tower.layers] * len(widths)
    return ResNetConfig(embedding_size=widths[0], hidden_sizes=widths, depths=depths, layer_type="basic")


def vit(tower: VisionSettings, image_size: int) -> PreTrainedConfig:
    """A transformer of `layers` layers over square patches."""
    return ViTConfig(
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
