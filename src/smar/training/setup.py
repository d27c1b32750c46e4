"""From a prepared dataset and settings to what a stage needs: processor, fresh model, batches."""

from dataclasses import dataclass

import numpy as np

from smar.data.dataset import Dataset
from smar.data.text import normalise
from smar.errors import InputError
from smar.model.configuration import SmarConfig
from smar.model.processing import SmarProcessor, build_processor
from smar.model.tokens import Ints, TokenTable
from smar.sections.model import ModelSettings
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

    def collator(self, processor: SmarProcessor, model: SmarConfig) -> Collator:
        """Batches of these pairs, tokenised once."""
        pad = processor.tokenizer.pad_token_id
        return Collator(
            pairs=self.pairs,
            queries=TokenTable.from_lists(processor.query_ids(self.queries, model), pad),
            items=TokenTable.from_lists(processor.item_ids(self.fields, model), pad),
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
