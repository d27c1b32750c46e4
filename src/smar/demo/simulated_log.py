"""The generated shop's queries, truth and simulated search log.

An intent asks for a category and some attributes; its text says them with everyday synonyms, in two orders,
now and then misspelt. Queries follow a Zipf law, so most of them are rare. In each search a mediocre engine
ranks the category by how many asked attributes match, by popularity and by noise, and shows ten items. The
shopper looks at position p with probability 1/p, clicks what fits, sometimes what does not, and orders some
of what was clicked.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from smar.demo.shop_items import Item, words

DAYS = 60
START = datetime(2026, 8, 1)
LATE_DAYS = 10
"""Items launched late become available within this many last days of the log."""
SHOWN = 10
_LATE_ITEMS, _LATE_QUERIES, _NEWS_DAYS = 0.08, 0.06, 7
_CLICK_FIT, _CLICK_NEAR, _CLICK_NOISE = 0.75, 0.12, 0.03  # all asked attributes fit, all but one, fewer
_ORDER_FIT, _ORDER_NOISE = 0.15, 0.03
_SECONDS = DAYS * 86400

# What a query asks for beside the category, and how often.
_ASKS: dict[str, tuple[tuple[tuple[str, ...], float], ...]] = {
    "Fashion": (
        (("colour",), 24),
        (("pattern",), 9),
        (("sleeve",), 6),
        (("shape",), 6),
        (("colour", "pattern"), 12),
        (("colour", "sleeve"), 6),
        (("colour", "shape"), 9),
        (("pattern", "shape"), 3),
        (("colour", "pattern", "sleeve"), 3),
        (("brand",), 9),
        (("material",), 7),
        (("brand", "material"), 3),
        (("colour", "material"), 4),
        (("brand", "colour"), 5),
        ((), 1),
    ),
    "Not-fashion": (
        (("size",), 24),
        (("power",), 14),
        (("plug",), 10),
        (("steel",), 6),
        (("torque",), 6),
        (("size", "power"), 10),
        (("size", "plug"), 9),
        (("power", "plug"), 9),
        (("size", "steel"), 5),
        (("size", "torque"), 5),
        (("brand",), 10),
        (("brand", "size"), 8),
        (("brand", "power"), 5),
        ((), 1),
    ),
}


@dataclass(frozen=True)
class Shelf:
    """One category as columns [m]: rows and, per attribute, the values and whether the titles hide them."""

    rows: np.ndarray
    values: Mapping[str, np.ndarray]
    hidden: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Query:
    """A query's text, what it asks for, and the truth.

    `fit`: int [m], how many asked attributes each item of the shelf has; `lacks`: bool [m], whether its title leaves
    out an asked attribute that the picture shows; `needs_image`: share of the relevant items that `lacks`.
    """

    text: str
    group: str
    asked: Mapping[str, str]
    shelf: Shelf
    fit: np.ndarray
    lacks: np.ndarray
    needs_image: float

    @property
    def relevant(self) -> np.ndarray:
        """Row numbers of the items that have everything asked for."""
        return np.asarray(self.shelf.rows[self.fit == len(self.asked)])

    @property
    def hidden(self) -> np.ndarray:
        """Whether each relevant item's title leaves out something that is asked: bool [relevant]."""
        return np.asarray(self.lacks[self.fit == len(self.asked)])


def _value(item: Item, name: str) -> str:
    return item.brand if name == "brand" else item.attributes[name]


def _say(item: Item, asks: Sequence[str], rng: np.random.Generator) -> str:
    """One wording of a query for these attributes of the item."""

    def pick(forms: Sequence[str]) -> str:
        share = 0.5 ** np.arange(len(forms))
        return str(forms[int(rng.choice(len(forms), p=share / share.sum()))]).lower()

    said = {name: pick(words(_value(item, name))) for name in asks}
    noun = pick(item.category.nouns)
    if item.category.noun_shapes and "shape" in said:
        noun = said.pop("shape")
    described = [said[name] for name in said]
    parts = [*described, noun] if rng.random() < 0.8 else [noun, *described]
    text = " ".join(parts)
    return _misspell(text, rng) if rng.random() < 0.03 else text


def _misspell(text: str, rng: np.random.Generator) -> str:
    """Drop one letter of one long word."""
    parts = text.split(" ")
    long = [i for i, word in enumerate(parts) if len(word) > 4 and word.isalpha()]
    if long:
        at = int(rng.choice(long))
        cut = int(rng.integers(1, len(parts[at])))
        parts[at] = parts[at][:cut] + parts[at][cut + 1 :]
    return " ".join(parts)


def draw_queries(items: Sequence[Item], count: int, rng: np.random.Generator) -> list[Query]:
    """Draw up to `count` distinct queries, those that came up most often first; each has a relevant item."""
    shelves = _shelves(items)
    queries: dict[str, Query] = {}
    times: Counter[str] = Counter()
    for _ in range(6 * count):
        if len(queries) == count:
            break
        item = items[int(rng.integers(len(items)))]
        kinds = [(a, w) for a, w in _ASKS[item.category.group] if {*a} <= {"brand", *item.attributes}]
        weights = np.array([weight for _, weight in kinds])
        asks = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))][0]
        text = _say(item, asks, rng)
        times[text] += 1
        if text not in queries:
            queries[text] = _query(text, item, asks, shelves[item.category.name])
    return sorted(queries.values(), key=lambda query: -times[query.text])


def _query(text: str, item: Item, asks: Sequence[str], shelf: Shelf) -> Query:
    asked = {name: _value(item, name) for name in asks}
    none = np.zeros(len(shelf.rows), dtype=np.int64)
    fit = sum((shelf.values[name] == value for name, value in asked.items()), start=none)
    lacks = sum((shelf.hidden[name] for name in asked), start=none) > 0
    needs = float(lacks[fit == len(asked)].mean())
    return Query(text, item.category.group, asked, shelf, fit, lacks, needs)


@dataclass(frozen=True)
class Log:
    """The log table (one row per impression, by time) and the second each item became available."""

    table: pa.Table
    launched: np.ndarray
    clicks: int
    orders: int


def _draw_searches(queries: int, searches: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Seconds (ascending) and query numbers of the searches; some queries come up in the last days only."""
    seconds = np.sort(rng.integers(0, _SECONDS, size=searches))
    weights = 1.0 / (np.arange(queries) + 8.0) ** 0.9
    news = (rng.random(queries) < _LATE_QUERIES) & (np.arange(queries) >= queries // 10)
    before = np.where(news, 0.0, weights)
    after = np.where(news, 3.0 * weights, weights)
    late = seconds >= _SECONDS - _NEWS_DAYS * 86400
    picks = rng.choice(queries, size=searches, p=before / before.sum())
    picks[late] = rng.choice(queries, size=int(late.sum()), p=after / after.sum())
    return seconds, picks


@dataclass(frozen=True)
class _Shop:
    """What the engine knows of the items: popularity score [n] and second of launch [n]."""

    appeal: np.ndarray
    launched: np.ndarray


def _open_shop(count: int, rng: np.random.Generator) -> _Shop:
    appeal = 0.35 * rng.permutation(_zipf_score(count))
    launched = np.zeros(count, dtype=np.int64)
    late = rng.permutation(count)[: round(_LATE_ITEMS * count)]
    launched[late] = np.linspace(_SECONDS - LATE_DAYS * 86400, _SECONDS - 86400, len(late)).astype(np.int64)
    appeal[late] += 0.7  # a shop shows what is new
    return _Shop(appeal, launched)


def _search(shop: _Shop, query: Query, seconds: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """One query's searches at the given seconds [n].

    Returns:
        item rows, clicked, ordered, shown: [n, 10] each; not shown where a shelf holds too few items yet.
    """
    rows = query.shelf.rows
    available = shop.launched[rows] <= seconds[:, None]
    noise = rng.normal(0, 0.5, size=available.shape)
    score = np.where(available, query.fit + shop.appeal[rows] + noise, -np.inf)
    top = np.argsort(-score, axis=1, kind="stable")[:, :SHOWN]
    missed = np.minimum(len(query.asked) - query.fit[top], 2)
    seen = 1 / np.arange(1, top.shape[1] + 1)
    clicked = rng.random(top.shape) < seen * np.array([_CLICK_FIT, _CLICK_NEAR, _CLICK_NOISE])[missed]
    ordered = clicked & (rng.random(top.shape) < np.where(missed == 0, _ORDER_FIT, _ORDER_NOISE))
    return rows[top], clicked, ordered, np.take_along_axis(available, top, axis=1)


def simulate(items: Sequence[Item], queries: Sequence[Query], searches: int, rng: np.random.Generator) -> Log:
    """Simulate `searches` searches of 60 days; the docstring of the module tells how."""
    seconds, picks = _draw_searches(len(queries), searches, rng)
    shop = _open_shop(len(items), rng)
    blocks: list[tuple[np.ndarray, ...]] = []
    ends = np.cumsum(np.bincount(picks, minlength=len(queries)))
    for query, mine in zip(queries, np.split(np.argsort(picks, kind="stable"), ends[:-1]), strict=True):
        if len(mine):
            rows, clicked, ordered, shown = _search(shop, query, seconds[mine], rng)
            place = np.broadcast_to(np.arange(1, rows.shape[1] + 1), rows.shape)
            search = np.broadcast_to(mine[:, None], rows.shape)
            blocks.append(tuple(x[shown] for x in (search, rows, place, clicked, ordered)))
    users = rng.integers(1, max(searches // 6, 1) + 1, size=searches)
    table = _table(items, queries, seconds, picks, users, blocks)
    clicks, orders = (int(sum(block[i].sum() for block in blocks)) for i in (3, 4))
    return Log(table, shop.launched, clicks, orders)


def _zipf_score(count: int) -> np.ndarray:
    """Standardised log popularity of `count` items under a Zipf law: float [count]."""
    score = -np.log(np.arange(count) + 5.0)
    return np.asarray((score - score.mean()) / max(float(score.std()), 1e-9))


def _shelves(items: Sequence[Item]) -> dict[str, Shelf]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, item in enumerate(items):
        rows[item.category.name].append(row)
    shelves = {}
    for name, shelf in rows.items():
        here = [items[row] for row in shelf]
        names = ("brand", *here[0].attributes)
        values = {key: np.array([_value(item, key) for item in here]) for key in names}
        hidden = {key: np.array([item.lacks(key) for item in here]) for key in names}
        shelves[name] = Shelf(np.array(shelf, dtype=np.int64), values, hidden)
    return shelves


def _table(
    items: Sequence[Item],
    queries: Sequence[Query],
    seconds: np.ndarray,
    picks: np.ndarray,
    users: np.ndarray,
    blocks: Sequence[tuple[np.ndarray, ...]],
) -> pa.Table:
    """Impressions in order of time, then position."""
    search, row, place, clicked, ordered = (np.concatenate(column) for column in zip(*blocks, strict=True))
    order = np.lexsort((place, search))
    search, row, place, clicked, ordered = (x[order] for x in (search, row, place, clicked, ordered))
    stamps = np.datetime64(START, "ms") + (seconds[search] * 1000).astype("timedelta64[ms]")
    return pa.table(
        {
            "user_id": pa.array(users[search]),
            "query": pa.array([query.text for query in queries]).take(pa.array(picks[search])),
            "item_id": pa.array([item.item_id for item in items]).take(pa.array(row)),
            "timestamp": pa.array(stamps, pa.timestamp("ms")),
            "position": pa.array(place.astype(np.int32)),
            "clicked": pa.array(clicked),
            "ordered": pa.array(ordered),
        }
    )
