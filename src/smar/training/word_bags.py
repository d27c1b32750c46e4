"""Stage 0: the image tower alone learns to name, from a picture, the words of its item and of the item's queries.

A linear head over the pooled image states predicts a bag of words (Joulin et al. 2016, "Learning visual features from
large weakly supervised data") and is thrown away afterwards. Every item with a picture takes part, clicked or not, and
a step costs the image tower only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smar.core.errors import InputError, TrainingError
from smar.data.words import words
from smar.model.processing import SmarProcessor
from smar.model.tokens import Ints, TokenTable
from smar.model.towers import ImageTower
from smar.training.augmentation import picture_input
from smar.training.batches import Collator, Pairs
from smar.training.encode_batch import statistics_left_alone
from smar.training.losses.picture_losses import word_loss
from smar.training.parts import PROBE, PartedTrainer, fitting

RARE = 5
"""A word of fewer items is left out."""


@dataclass(frozen=True)
class Bags:
    """Distributions over `words` words, ragged: item i has `word` and `share` at offsets[i] ... offsets[i + 1] - 1."""

    offsets: Ints
    word: Ints
    share: npt.NDArray[np.float32]
    words: int

    def rows(self, items: Ints) -> Tensor:
        """Distributions [n, words] of items [n]; a row sums to 1, or to 0 for an item without a word."""
        count = self.offsets[items + 1] - self.offsets[items]
        row, at = np.repeat(np.arange(len(items)), count), _runs(self.offsets[items], count)
        out = np.zeros((len(items), self.words), np.float32)
        out[row, self.word[at]] = self.share[at]
        return torch.from_numpy(out)


def word_bags(items: TokenTable, queries: TokenTable, pairs: Pairs, allowed: npt.NDArray[np.bool_]) -> Bags:
    """Bag of every item: the mean of two distributions, its text's words and its queries' words.

    Words of the text count equally. A query's words share the weight of its pair. Words of fewer than `RARE` items
    are left out.

    Args:
        items, queries: numbers of their words.
        pairs: training pairs.
        allowed: bool [words], those that may be named.
    """
    item, word, share = _text_words(items, allowed)
    query, query_word, query_share = _text_words(queries, allowed)
    start = np.searchsorted(query, np.arange(len(queries) + 1))
    count = np.diff(start)[pairs.query]
    at, owner = _runs(start[pairs.query], count), np.repeat(pairs.item, count)
    weight = query_share[at] * np.repeat(pairs.weight, count)
    weight /= np.bincount(owner, weight, minlength=len(items))[owner].clip(1e-12)
    key = np.concatenate([item, owner]) * len(allowed) + np.concatenate([word, query_word[at]])
    key, place = np.unique(key, return_inverse=True)
    share = np.bincount(place, np.concatenate([share, weight])).astype(np.float64)
    item, word = np.divmod(key, len(allowed))
    common = np.bincount(word, minlength=len(allowed))[word] >= RARE
    item, share = item[common], share[common]
    names, number = np.unique(word[common], return_inverse=True)
    share = share / np.bincount(item, share, minlength=len(items))[item]
    offsets = np.searchsorted(item, np.arange(len(items) + 1))
    return Bags(offsets, number.astype(np.int64), share.astype(np.float32), len(names))


def _runs(start: Ints, count: Ints) -> Ints:
    """The numbers start[i], start[i] + 1, ... of each i, count[i] of them, one run after the other."""
    shift: Ints = np.repeat(start - (np.cumsum(count) - count), count)
    return np.arange(len(shift)) + shift


def _text_words(texts: TokenTable, allowed: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """Row, word and equal share of every distinct word of every text, sorted by row."""
    row = np.repeat(np.arange(len(texts)), np.diff(texts.offsets))
    key = np.unique(row[allowed[texts.ids]] * len(allowed) + texts.ids[allowed[texts.ids]])
    row, word = np.divmod(key, len(allowed))
    return row, word, 1 / np.bincount(row, minlength=len(texts))[row]


def number_words(
    items: Sequence[str], queries: Sequence[str], language: str | None, most: int
) -> tuple[TokenTable, TokenTable, npt.NDArray[np.bool_]]:
    """Items and queries as numbers of their words, and which words are among the `most` that most items hold."""
    known: dict[str, int] = {}
    lists = [[known.setdefault(w, len(known)) for w in words(text, language)] for text in (*items, *queries)]
    held = np.zeros(len(known), np.int64)
    for numbers in lists[: len(items)]:
        held[list(set(numbers))] += 1
    allowed = np.zeros(max(len(known), 1), np.bool_)
    allowed[np.argsort(-held, kind="stable")[:most]] = True
    return TokenTable.from_lists(lists[: len(items)], 0), TokenTable.from_lists(lists[len(items) :], 0), allowed


@dataclass(frozen=True)
class WordCollator:
    """Pictures and bags of words of catalogue items that have both, by their place in `items`."""

    items: Ints
    images: npt.NDArray[np.uint8] | npt.NDArray[np.float16]
    image_row: Ints
    bags: Bags

    @classmethod
    def of(
        cls, pairs: Collator, items: Sequence[str], queries: Sequence[str], language: str | None, most: int
    ) -> "WordCollator":
        """Every item with a picture and a word.

        Args:
            pairs: pictures, and who was clicked for what.
            items, queries: their texts.
            language: see `smar.data.words.words`.
            most: words that are named.

        Raises:
            InputError: there are fewer than two.
        """
        numbered = number_words(items, queries, language, most)
        bags = word_bags(numbered[0], numbered[1], pairs.pairs, numbered[2])
        shown = np.flatnonzero((pairs.first_picture >= 0) & (np.diff(bags.offsets) > 0))
        if pairs.images is None or len(shown) < 2:
            raise InputError("train.stage0 needs items with pictures and words; set train.stage0.steps=0.")
        return cls(shown, pairs.images, pairs.first_picture, bags)

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`pixels` uint8 [n, s, s, 3], `target` [n, words], `item_rows` [n]."""
        items = self.items[np.asarray(indices)]
        return {
            "pixels": torch.from_numpy(self.images[self.image_row[items]]),
            "target": self.bags.rows(items),
            "item_rows": torch.from_numpy(items),
        }


class WordModel(nn.Module):
    """An image tower and the head that names words."""

    def __init__(self, tower: ImageTower, words: int) -> None:
        super().__init__()
        self.image_tower = tower
        tower.projection.requires_grad_(False)  # not on the way to the words
        self.head = nn.Linear(tower.head.pooled, words)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [n, 3, s, s] -> logits [n, words], float32."""
        return self.head(self.image_tower(pixels)[1]).float()  # type: ignore[no-any-return]


class WordTrainer(PartedTrainer):
    """`Trainer` of a `WordModel`; pictures that do not fit into memory together add up their gradients."""

    def __init__(
        self, *, processor: SmarProcessor, augment: bool, micro_batch: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.processor, self.augment, self.at_once = processor, augment, micro_batch

    def step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Loss and gradient of one batch, part by part."""
        self.examples = len(inputs["pixels"])
        if self.at_once is None:
            with self.compute_loss_context_manager(), statistics_left_alone(model):
                some = self._prepare_inputs({name: value[:PROBE] for name, value in inputs.items()})
                encode = partial(model, picture_input(some["pixels"], self.processor, augment=False))
                self.at_once = fitting(model, encode, len(some["pixels"]), self.args.device)
        parts = -(-self.examples // self.at_once)
        losses = []
        for part in range(parts):
            own = {name: value[part::parts] for name, value in inputs.items()}
            losses.append(super().step(model, self.trimmed(own) if parts > 1 else own, *args, **kwargs))
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """Name the words of the batch's pictures."""
        loss = word_loss(model(picture_input(inputs["pixels"], self.processor, self.augment)), inputs["target"])
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss of stage 0 is {loss.item()} at step {self.state.global_step + 1} (dataset items "
                f"{inputs['item_rows'][:8].tolist()}...): lower train.stage0.learning_rate, or set train.bf16=false."
            )
        return loss * len(inputs["pixels"]) / self.examples
