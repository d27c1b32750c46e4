"""Queries made of the catalogue's own words: what can be learned of an item that nobody clicked.

Each holds some words of an item, and that item must be found with them among the batch's others: single words, the rare
ones more often, spans of a field, words of the title beside a value of another field, in their order or not, now and
then with a typing error. Every item of the catalogue takes part. That is the pre-training task of the same group's
retriever (Qiu et al., CIKM 2022), which learned it from clicks and titles; which words are drawn is our choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import regex
import torch
from torch import Tensor
from torch.nn import functional

from smar.data.text import normalise
from smar.data.words import idf, words
from smar.model.tokens import Ints, TokenTable

MOST_WORDS = 4
_SPAN, _OTHER = 0.25, 0.25  # of the queries: a span of the title; words of it beside another field
_IN_ORDER, _TYPO = 0.5, 0.1
_SPACELESS = regex.compile(r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{Line_Break=SA}]{3,}")
_LETTERS = 5  # of a script without blanks at most
_MOST_TOKENS = 64  # of a field that are looked at


_words = lru_cache(maxsize=1 << 17)(words)
"""Of one token, which is met many times."""


@dataclass(frozen=True)
class Made:
    """Queries made for one batch: distinct catalogue rows `items` [c], the query of each and its words' numbers."""

    items: Ints
    queries: Sequence[str]
    words: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class CatalogueQueries:
    """Makes queries of the items' texts.

    Attributes:
        fields: one list of texts a field, the title first.
        held: numbers of the words of each item, all fields together.
        number: number of each word.
        weight: idf of each word by its number.
        share: made queries for each pair of a batch.
        seed: of the draws, which depend on it and on the batch's pairs alone.
        read: queries -> their token ids.

    >>> queries = CatalogueQueries.of([["red cotton dress"], ["Acme"]], 1.0, 0, lambda texts: [[1]] * len(texts))
    >>> made = queries.draw(np.array([3]))  # of the batch of pair 3
    >>> made.items, made.queries
    (array([0]), ['red cotton dreess'])
    """

    fields: Sequence[Sequence[str]]
    held: TokenTable
    number: dict[str, int]
    weight: npt.NDArray[np.float64]
    share: float
    seed: int
    read: Callable[[Sequence[str]], Sequence[Sequence[int]]]

    @classmethod
    def of(
        cls,
        fields: Sequence[Sequence[str]],
        share: float,
        seed: int,
        read: Callable[[Sequence[str]], Sequence[Sequence[int]]],
    ) -> "CatalogueQueries":
        """Number the words of all items."""
        number: dict[str, int] = {}
        lists = [
            sorted({number.setdefault(word, len(number)) for text in texts for word in words(text)})
            for texts in zip(*fields, strict=True)
        ]
        held = TokenTable.from_lists(lists, 0)
        weight = idf(np.bincount(held.ids, minlength=len(number)), len(lists))
        return cls(fields, held, number, weight, share, seed, read)

    def draw(self, pairs: Ints) -> Made:
        """Queries for the batch of the given pairs [B], of so many items as the share says, all of them distinct."""
        count = min(round(self.share * len(pairs)), len(self.held))
        rng = np.random.default_rng([self.seed, 1, *pairs.tolist()])
        items = np.sort(rng.choice(len(self.held), count, replace=False, shuffle=False))
        made = [(item, query) for item in items.tolist() if (query := self._make(item, rng))]
        numbers = [[self.number[word] for token in query for word in _words(token)] for _, query in made]
        texts = [" ".join(_mistyped(query, rng)) for _, query in made]
        return Made(np.array([item for item, _ in made], np.int64), texts, numbers)

    def _make(self, item: int, rng: np.random.Generator) -> list[str]:
        title, *others = (self._tokens(texts[item], rng) for texts in self.fields)
        others = [tokens for tokens in others if tokens]
        kind, count = rng.random(), 1 + rng.binomial(MOST_WORDS - 1, 0.5)
        if not title or (others and kind < _OTHER):
            value = _span(others[rng.integers(len(others))], 3, rng) if others else []
            chosen = list(dict.fromkeys([*value, *self._some(title, min(count, 2), rng)]))
            return [chosen[at] for at in rng.permutation(len(chosen))]
        return _span(title, count, rng) if kind < _OTHER + _SPAN else self._some(title, count, rng)

    def _tokens(self, text: str, rng: np.random.Generator) -> list[str]:
        """What stands between blanks; of a script that sets none, some letters that follow each other."""
        found = []
        for token in normalise(text).split()[:_MOST_TOKENS]:
            for part in [token] if token.isascii() else _SPACELESS.findall(token) or [token]:
                if len(part) > _LETTERS and _SPACELESS.fullmatch(part):
                    size = int(rng.integers(2, _LETTERS + 1))
                    start = int(rng.integers(len(part) - size + 1))
                    part = part[start : start + size]
                if self._weight_of(part) is not None:
                    found.append(part)
        return found

    @cached_property
    def _weight_of(self) -> Callable[[str], float | None]:
        """Idf of a token's rarest word; None where the catalogue does not hold them all, or it has none."""

        @lru_cache(maxsize=1 << 17)
        def weight_of(token: str) -> float | None:
            numbers = [self.number.get(word) for word in _words(token)]
            known = [number for number in numbers if number is not None]
            return float(self.weight[known].max()) if known and len(known) == len(numbers) else None

        return weight_of

    def _some(self, tokens: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
        """Words drawn by their rarity."""
        if not tokens:
            return []
        weight = np.array([self._weight_of(token) for token in tokens])
        chosen = rng.choice(len(tokens), min(count, len(tokens)), replace=False, p=weight / weight.sum())
        return [tokens[at] for at in (np.sort(chosen) if rng.random() < _IN_ORDER else chosen)]

    def behind(self, batch: Mapping[str, Any], made: Made, items: Ints, target: Ints) -> dict[str, Tensor]:
        """The queries and pairs of a batch (see `smar.training.batches.Collator`) and the made ones behind them.

        Args:
            batch: of the pairs that were clicked.
            made: what `draw` gave.
            items: the batch's catalogue rows [n], those of `made` among them.
            target: column of each made query's item [c].
        """
        typed, count = len(batch["query_ids"]), len(made)
        ids, mask = TokenTable.from_lists(self.read(made.queries), 0).rows(np.arange(count))
        holding = torch.from_numpy(self.holding(made, items))
        blocked = holding.clone()
        blocked[torch.arange(count), torch.from_numpy(target)] = False
        further = {
            "query_of_pair": torch.arange(typed, typed + count),
            "target": torch.from_numpy(target),
            "blocked": blocked,
            "liked": holding,
            "weight": batch["weight"].mean().expand(count),
            "query_rows": torch.full((count,), -1),
            **({"share": torch.zeros(count)} if "share" in batch else {}),
        }
        joined = {name: torch.cat([batch[name], own]) for name, own in further.items()}
        width = max(ids.shape[1], batch["query_ids"].shape[1])
        for name, own in (("query_ids", ids), ("query_mask", mask)):
            joined[name] = torch.cat([functional.pad(part, (0, width - part.shape[1])) for part in (batch[name], own)])
        return joined

    def holding(self, made: Made, items: Ints) -> npt.NDArray[np.bool_]:
        """Bool [c, n]: which of `items` [n] hold all words of each made query, and so are none of its negatives."""
        numbers = np.unique(np.concatenate([np.asarray(own, np.int64) for own in made.words]))
        asked = np.zeros((len(made.items), len(numbers)), np.float32)
        for row, own in enumerate(made.words):
            asked[row, np.searchsorted(numbers, own)] = 1
        ids, mask = self.held.rows(items)
        place = np.searchsorted(numbers, ids).clip(max=len(numbers) - 1)
        at = np.nonzero((numbers[place] == ids.numpy()) & mask.numpy().astype(bool))
        there = np.zeros((len(items), len(numbers)), np.float32)
        there[at[0], place[at]] = 1
        found: npt.NDArray[np.bool_] = asked @ there.T >= asked.sum(1, keepdims=True)
        return found


def _span(tokens: Sequence[str], most: int, rng: np.random.Generator) -> list[str]:
    size = min(most, len(tokens))
    start = int(rng.integers(len(tokens) - size + 1))
    return list(tokens[start : start + size])


def _mistyped(tokens: list[str], rng: np.random.Generator) -> list[str]:
    """Now and then one word of four letters or more with a letter left out, doubled, swapped or wrong."""
    at = int(rng.integers(len(tokens)))
    token = tokens[at]
    if rng.random() >= _TYPO or len(token) < 4 or not token.isalpha():
        return tokens
    place, kind = int(rng.integers(1, len(token) - 1)), int(rng.integers(4))
    before, letter, after = token[:place], token[place], token[place + 1 :]
    wrong = tokens[int(rng.integers(len(tokens)))][0]
    changed = (
        before + after,
        before + 2 * letter + after,
        before + after[0] + letter + after[1:],
        before + wrong + after,
    )
    return [*tokens[:at], changed[kind], *tokens[at + 1 :]]
