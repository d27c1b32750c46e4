"""From a prepared dataset and settings to what a stage needs: processor, fresh model, batches."""

from dataclasses import dataclass

import numpy as np
from transformers import AutoModel

from smar.data.dataset import Dataset
from smar.data.text import normalise
from smar.errors import InputError
from smar.model.configuration import build_config, pinned, pretrained_config
from smar.model.modeling import SmarModel
from smar.model.processing import SmarProcessor, build_processor
from smar.model.tokens import Ints, TokenTable
from smar.sections.model import ModelSettings, TowerSettings
from smar.settings import Settings
from smar.training.batches import Collator, KnownPositives, Pairs


@dataclass(frozen=True)
class TrainingData:
    """Distinct training queries, item text fields and the pairs between them; `rows` are the pairs trained on."""

    dataset: Dataset
    queries: list[str]
    fields: list[list[str]]
    pairs: Pairs
    rows: Ints

    @classmethod
    def from_dataset(
        cls, dataset: Dataset, text_fields: tuple[str, ...], holdout: float = 0.0, seed: int = 0
    ) -> "TrainingData":
        """Read the training pairs into arrays; a share of them, `holdout`, is kept from the towers."""
        table = dataset.pairs("train")
        if not len(table):
            raise InputError(f"{dataset.path} has no training pair: prepare it with an earlier --test-from.")
        queries, row = np.unique(np.asarray(table["query"].to_pylist(), dtype=object), return_inverse=True)
        pairs = Pairs(
            query=row.astype(np.int64),
            item=table["item_index"].to_numpy().astype(np.int64),
            weight=table["weight"].to_numpy().astype(np.float32),
        )
        rows = np.flatnonzero(np.random.default_rng([seed, 1]).random(len(pairs)) >= holdout)
        return cls(dataset, queries.tolist(), dataset.fields(text_fields), pairs, rows)

    def texts(self) -> list[str]:
        """Every text the tokenizer is fitted on, in its normal form."""
        return [normalise(text) for texts in (self.queries, *self.fields) for text in texts]

    def categories(self, column: str) -> Ints:
        """Number of each pair's category, int64 [pairs]."""
        _, number = np.unique(np.asarray(self.dataset.fields([column])[0], dtype=object), return_inverse=True)
        return number.astype(np.int64)[self.pairs.item]

    def collator(self, processor: SmarProcessor, model: ModelSettings) -> Collator:
        """Batches of these pairs, tokenised once."""
        pad = processor.tokenizer.pad_token_id
        items = processor.item_texts(self.fields)
        return Collator(
            pairs=self.pairs,
            queries=TokenTable.from_lists(
                processor.token_ids(list(map(normalise, self.queries)), model.query_length), pad
            ),
            items=TokenTable.from_lists(processor.token_ids(items, model.text_length), pad),
            images=None if model.kind == "dpsr" else self.dataset.images,
            image_row=self.dataset.image_row,
            known=KnownPositives(self.pairs, len(self.queries)),
            rows=self.rows if model.kind == "smar" else np.arange(len(self.pairs)),
        )


def new_processor(settings: Settings, data: TrainingData, model: ModelSettings | None = None) -> SmarProcessor:
    """Processor of a run's own model, or of a baseline `model`."""
    size = data.dataset.manifest.image_size
    if size != settings.data.image_size:
        raise InputError(
            f"data.image_size is {settings.data.image_size}, but {data.dataset.path} was packed at {size} pixels: "
            f"set data.image_size={size}, or prepare the dataset again."
        )
    return build_processor(model or settings.model, size, data.texts())


def new_model(settings: Settings, model: ModelSettings, processor: SmarProcessor) -> SmarModel:
    """Fresh model; towers named in the settings start from their pretrained weights, frozen where asked.

    Raises:
        InputError: a pretrained vision encoder expects another picture size.
    """
    config = build_config(
        model,
        settings.data.image_size,
        len(processor.tokenizer),
        settings.data.text_fields,
        settings.train.temperature,
        settings.train.loss,
    )
    expected = getattr(config.vision_config, "image_size", None)
    if model.vision.pretrained and expected not in (None, settings.data.image_size):
        raise InputError(
            f"{model.vision.pretrained} expects pictures of {expected} pixels, the dataset has "
            f"{settings.data.image_size}: prepare with data.image_size={expected}."
        )
    built = SmarModel._from_config(config, attn_implementation="eager")
    for name, tower in _pretrained(built, model):
        encoder = getattr(built, name).encoder
        missing = encoder.load_state_dict(_weights(tower, name), strict=False).missing_keys  # its pooler is not used
        if missing:
            raise InputError(f"{tower.pretrained} lacks weights of its own architecture: {', '.join(missing[:5])}.")
    freeze(built, model)
    return built  # type: ignore[no-any-return]


def freeze(built: SmarModel, model: ModelSettings, image: bool = False) -> None:
    """Train every encoder but those that the settings freeze, and the image encoder if `image`; loading forgets it."""
    for name, tower in model.towers.items():
        if hasattr(built, name):
            frozen = bool(tower.pretrained and tower.frozen) or (image and name == "image_tower")
            getattr(built, name).encoder.requires_grad_(not frozen)


def _pretrained(built: SmarModel, model: ModelSettings) -> list[tuple[str, TowerSettings]]:
    """The model's towers that have a pretrained encoder of their own, by name."""
    shared = "text_tower" if model.share_text and model.kind != "dpsr-i" else ""
    towers = model.towers.items()
    return [(name, tower) for name, tower in towers if tower.pretrained and hasattr(built, name) and name != shared]


def _weights(tower: TowerSettings, name: str) -> dict[str, object]:
    """Weights of a pretrained encoder; of a two-tower checkpoint, its part for the tower `name`. Never a pickle."""
    source, revision = pinned(str(tower.pretrained))
    try:
        encoder = AutoModel.from_pretrained(source, revision=revision, use_safetensors=True)
    except OSError as error:
        raise InputError(
            f"the weights of {tower.pretrained} cannot be read ({error}). Only safetensors are: a pytorch_model.bin is "
            "a pickle, which may run code. Where you trust it, convert it once, in Python with transformers: "
            f"AutoModel.from_pretrained({source!r}).save_pretrained(FOLDER), and copy its tokenizer's files there."
        ) from None
    if hasattr(pretrained_config(str(tower.pretrained)), "vision_config"):
        encoder = encoder.vision_model if name == "image_tower" else encoder.text_model
    return encoder.state_dict()  # type: ignore[no-any-return]
