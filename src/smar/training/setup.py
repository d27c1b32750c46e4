"""From a prepared dataset and settings to what a stage needs: processor, fresh model, batches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from smar.core.errors import InputError
from smar.core.sections.model import ModelSettings
from smar.core.settings import Settings
from smar.data.dataset import Dataset
from smar.data.text import normalise
from smar.model.configuration import SmarConfig
from smar.model.processing import SmarProcessor, build_processor
from smar.model.seen import Keys, Seen, keys, pair_keys
from smar.model.tokenizer import RARE, count_words
from smar.model.tokens import Ints, TokenTable
from smar.training.batches import Collator, KnownPositives, Pairs


@dataclass(frozen=True)
class TrainingData:
    """Distinct training queries, item text fields and the pairs between them; `rows` are the pairs trained on.

    `before`: what the runs that this one goes on from have seen.
    """

    dataset: Dataset
    queries: list[str]
    fields: list[list[str]]
    pairs: Pairs
    rows: Ints
    before: Seen = field(default_factory=Seen)

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset,
        text_fields: tuple[str, ...],
        holdout: float = 0.0,
        seed: int = 0,
        before: Seen = Seen(),
    ) -> "TrainingData":
        """Read the training pairs into arrays.

        The pairs of a share `holdout` of the queries, and those of the same share of the items, are kept from the
        towers: what the gate is fitted on holds queries that nobody typed before, and items that nobody clicked. They
        are the same in every run, so that one that goes on from another has some that neither learned from.
        """
        table = dataset.pairs("train")
        if not len(table):
            raise InputError(f"{dataset.path} has no training pair: prepare it with an earlier --test-from.")
        queries, row = np.unique(np.asarray(table["query"].to_pylist(), dtype=object), return_inverse=True)
        pairs = Pairs(
            query=row.astype(np.int64),
            item=table["item_index"].to_numpy().astype(np.int64),
            weight=table["weight"].to_numpy().astype(np.float32),
        )
        ids = map(str, dataset.items["item_id"].to_pylist())
        held = _drawn(queries.tolist(), holdout, seed)[pairs.query] | _drawn(ids, holdout, seed)[pairs.item]
        return cls(dataset, queries.tolist(), dataset.fields(text_fields), pairs, np.flatnonzero(~held), before)

    def texts(self) -> list[str]:
        """Every text the tokenizer is fitted on, in its normal form."""
        return [normalise(text) for texts in (self.queries, *self.fields) for text in texts]

    @cached_property
    def frequent_words(self) -> dict[str, int]:
        """How often each word stands in `texts`, without the rare ones."""
        return {word: count for word, count in count_words(self.texts()).items() if count >= RARE}

    def keys_of(self, query: Ints, item: Ints, queries: Sequence[str]) -> Keys:
        """A key of each pair of a row of `queries` and a catalogue row."""
        ids = self.dataset.items["item_id"].to_pylist()
        return pair_keys([queries[row] for row in query], [str(ids[row]) for row in item])

    def seen(self) -> Seen:
        """What this run's own model has seen once it is trained, and those before it."""
        pairs = self.keys_of(self.pairs.query[self.rows], self.pairs.item[self.rows], self.queries)
        return Seen(pairs, keys(self.frequent_words)).and_of(self.before)

    def collator(self, processor: SmarProcessor, model: SmarConfig, own: bool = True) -> Collator:
        """Batches of these pairs, tokenised once; only the run's `own` model has some held out, for its gate."""
        pad = processor.tokenizer.pad_token_id
        return Collator(
            pairs=self.pairs,
            queries=TokenTable.from_lists(processor.query_ids(self.queries, model), pad),
            items=TokenTable.from_lists(processor.item_ids(self.fields, model), pad),
            images=None if model.kind == "dpsr" else self.dataset.images,
            image_row=self.dataset.image_row,
            known=KnownPositives(self.pairs, len(self.queries)),
            rows=self.rows if own else np.arange(len(self.pairs)),
        )


def _drawn(names: Iterable[str], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """A share of some queries or items, bool [n], by a hash of their names: a later run draws the same again."""
    return keys(f"{seed} {name}" for name in names) < np.uint64(share * 2**64)


def new_processor(settings: Settings, data: TrainingData, model: ModelSettings | None = None) -> SmarProcessor:
    """Processor of a run's own model, or of a baseline `model`."""
    size = data.dataset.manifest.image_size
    if size != settings.data.image_size:
        raise InputError(
            f"data.image_size is {settings.data.image_size}, but {data.dataset.path} was packed at {size} pixels: "
            f"set data.image_size={size}, or prepare the dataset again."
        )
    return build_processor(model or settings.model, size, data.texts())
