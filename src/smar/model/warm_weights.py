"""A finished model that training goes on with: what it keeps, what settings may change of it, tokens for new words."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from smar.core.errors import InputError
from smar.core.overrides import differences
from smar.core.sections.losses import LossSettings
from smar.core.sections.model import ModelSettings
from smar.core.settings import Settings
from smar.model.configuration import SmarConfig
from smar.model.encoder import Encoder
from smar.model.modeling import SmarModel
from smar.model.processing import SmarProcessor
from smar.model.tokenizer import BYTES, extended, is_fitted

_FREE = {"gate", "matryoshka", "modality_dropout", "new_words", "query_prefix", "item_prefix"}
LENGTHS = ("query_length", "text_length")
_FREE |= {*LENGTHS}
_HOW = ("frozen", "learning_rate", "layer_decay", "unfreeze_last", "lora", "dropout")
_FREE |= {f"{tower}.{name}" for tower in ("query", "text", "vision") for name in _HOW}
"""Settings of the model section that say how the weights are trained, not which there are."""


def contradictions(before: Settings, now: Settings) -> list[str]:
    """Settings that the weights of a finished model cannot follow, each with the value it has and the one asked for."""
    parts = {"model", "train"}
    fixed = {"train.loss.learn_temperature"} | ({"train.temperature"} if now.train.loss.learn_temperature else set())
    return [
        text
        for name, text in differences(before.model_dump(include=parts), now.model_dump(include=parts)).items()
        if name in fixed or (name.startswith("model.") and name.removeprefix("model.") not in _FREE)
    ]


def warm_config(folder: Path, settings: Settings, model: ModelSettings) -> SmarConfig:
    """Configuration of the finished model in `folder`, with what the settings may change; texts become no longer.

    Raises:
        InputError: a prefix of the vectors would be as long as they are.
    """
    config: SmarConfig = SmarConfig.from_pretrained(folder)
    for name in LENGTHS:
        known = getattr(config, name)
        setattr(config, name, min(getattr(model, name) or known, known))
    if model.matryoshka and model.matryoshka[-1] >= config.dim:
        raise InputError(
            f"model.matryoshka ({list(model.matryoshka)}) must stay below the vectors' {config.dim} numbers."
        )
    for name in ("query_prefix", "item_prefix"):
        if (prefix := getattr(model, name)) is not None:
            setattr(config, name, prefix)
    config.text_fields, config.matryoshka = list(settings.data.text_fields), list(model.matryoshka)
    config.modality_dropout, config.category_share = model.modality_dropout, None  # fitted anew
    _temper(config, settings.train.temperature, settings.train.loss)
    parts = zip((config.query_config, config.text_config, config.vision_config), model.towers.values(), strict=True)
    for part, tower in parts:
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if tower.pretrained is None and hasattr(part, name):
                setattr(part, name, tower.dropout)
    return config


def _temper(config: SmarConfig, temperature: float | None, loss: LossSettings) -> None:
    config.temperature_bounds = list(loss.temperature_bounds)
    if temperature and not loss.learn_temperature:
        config.temperature = temperature


def warm_model(folder: Path, settings: Settings, model: ModelSettings, processor: SmarProcessor) -> SmarModel:
    """The finished model in `folder` with a vector for each further token of `processor`; all others stay as they are.

    A new token's vector begins as the mean of the vectors of the pieces that its text was read as before.

    Raises:
        InputError: see `warm_config`; the folder holds no model, or a damaged one.
    """
    before = Encoder.from_pretrained(folder, config=warm_config(folder, settings, model))
    built: SmarModel = before.model
    known = before.processor.tokenizer
    new = processor.tokenizer.convert_ids_to_tokens(list(range(len(known), len(processor.tokenizer))))
    if not new:
        return built
    pieces = known(new, add_special_tokens=False)["input_ids"]
    for name in ("query", "text"):
        encoder = getattr(getattr(built, f"{name}_tower", None), "encoder", nn.Identity())
        if isinstance(encoder, PreTrainedModel):  # a shared one is the other tower's
            _add_rows(encoder, pieces)
        getattr(built.config, f"{name}_config").vocab_size = len(processor.tokenizer)
    return built


@torch.no_grad()
def _add_rows(encoder: PreTrainedModel, pieces: Sequence[Sequence[int]]) -> None:
    known: torch.Tensor = encoder.get_input_embeddings().weight.detach().clone()
    encoder.resize_token_embeddings(len(known) + len(pieces), mean_resizing=False)
    rows = encoder.get_input_embeddings().weight
    rows[len(known) :] = torch.stack([known[list(ids)].mean(0) for ids in pieces])


def warm_processor(folder: Path, model: ModelSettings, words: Mapping[str, int]) -> SmarProcessor:
    """The processor of a finished model, with tokens for new words where its tokenizer was fitted on a shop.

    Args:
        folder: of the finished model.
        model: how many tokens there may be.
        words: how often each word occurs that the tokenizer was not fitted on.
    """
    processor: SmarProcessor = SmarProcessor.from_pretrained(folder)
    if grows(processor, model):
        room = model.vocabulary + len(BYTES) + model.new_words - len(processor.tokenizer)
        processor.tokenizer = extended(processor.tokenizer, words, max(room, 0))
    return processor


def grows(processor: SmarProcessor, model: ModelSettings) -> bool:
    """Whether the tokenizer was fitted on a shop: that of a pretrained encoder is kept."""
    texts = ("query_tower", "text_tower")
    return not any(model.towers[name].pretrained for name in texts) and is_fitted(processor.tokenizer)
