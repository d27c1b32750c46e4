"""The words of a large generated shop: titles and queries of its clusters, and the columns of its items.

Words are made of syllables and used as unevenly as real ones. A category has nouns of its own, a cluster (a kind of
product) one of them and words of its own; titles add brand, attributes and a model number. A query names the noun and
some of the other words. Nothing here is a real product, brand or query.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

CATEGORIES = 40
_NOUNS = 8
_OWN = 4
_ATTRIBUTES = 400
_BRANDS = 2000


@dataclass(frozen=True)
class Words:
    """Words by use; `noun` [clusters], `own` [clusters, 4]; `category` [clusters] is each cluster's category."""

    noun: np.ndarray
    own: np.ndarray
    attribute: np.ndarray
    brand: np.ndarray
    category: np.ndarray
    category_name: np.ndarray


def draw_words(rng: np.random.Generator, clusters: int) -> Words:
    nouns, own = CATEGORIES * _NOUNS, 5 * clusters // 4 + 100
    word = lexicon(rng, nouns + own + _ATTRIBUTES + _BRANDS + CATEGORIES)
    noun, own_words, attribute, brand, names = np.split(word, np.cumsum([nouns, own, _ATTRIBUTES, _BRANDS]))
    category = rng.integers(CATEGORIES, size=clusters)
    return Words(
        noun=noun.reshape(CATEGORIES, _NOUNS)[category, rng.integers(_NOUNS, size=clusters)],
        own=own_words[_zipf(rng, (clusters, _OWN), len(own_words))],
        attribute=attribute,
        brand=brand,
        category=category,
        category_name=np.char.capitalize(names),
    )


def lexicon(rng: np.random.Generator, size: int) -> np.ndarray:
    """Different words of two to four syllables, shorter ones first."""
    syllables = np.array(
        [a + b + c for a in "bcdfghjklmnprstvwz" for b in "aeiou" for c in ("", "", "n", "r", "s", "l")]
    )
    drawn = rng.choice(syllables, (4 * size, 4))
    length = np.sort(rng.integers(2, 5, 4 * size))
    words = dict.fromkeys("".join(row[:count]) for row, count in zip(drawn, length, strict=True))
    chosen = np.array(list(words))
    return chosen[np.sort(rng.permutation(len(chosen))[:size])]


def _zipf(rng: np.random.Generator, shape: tuple[int, ...], words: int) -> np.ndarray:
    """Word numbers; the n-th word is used about 1/n as often as the first."""
    return np.exp(rng.random(shape) * np.log(words)).astype(np.int64) - 1


def _two_of(rng: np.random.Generator, own: np.ndarray) -> np.ndarray:
    """Two different columns of each row of `own` [n, 4]."""
    first = rng.integers(_OWN, size=(len(own), 1))
    second = (first + rng.integers(1, _OWN, size=first.shape)) % _OWN
    return np.take_along_axis(own, np.concatenate([first, second], axis=1), axis=1)


def titles(rng: np.random.Generator, words: Words, cluster: np.ndarray, brand: np.ndarray) -> list[str]:
    """A title for each item, of five to nine words; `cluster` and `brand` are numbers [n]."""
    count = len(cluster)
    own = _two_of(rng, words.own[cluster])
    attribute = words.attribute[_zipf(rng, (count, 3), _ATTRIBUTES)]
    shown = rng.random((count, 4)) < (1.0, 0.8, 0.4, 0.5)
    code = rng.integers(100, 9999, count)
    columns = (words.brand[brand], own, attribute, words.noun[cluster], shown, code)
    return [
        " ".join([maker.capitalize(), *mine, *(a for a, use in zip(extra, keep, strict=False) if use), noun])
        + (f" {noun[:2].upper()}-{number}" if keep[3] else "")
        for maker, mine, extra, noun, keep, number in zip(*columns, strict=True)
    ]


def queries(rng: np.random.Generator, words: Words, cluster: np.ndarray) -> list[str]:
    """A query of one to five words that looks for each cluster [n]."""
    count = len(cluster)
    own = _two_of(rng, words.own[cluster])
    attribute, brand = _zipf(rng, (count,), _ATTRIBUTES), _zipf(rng, (count,), _BRANDS)
    parts = [words.brand[brand], own[:, 0], own[:, 1], words.attribute[attribute], words.noun[cluster]]
    shown = rng.random((count, 5)) < (0.15, 0.7, 0.25, 0.6, 0.95)
    shown[~shown.any(axis=1), 4] = True
    return [
        " ".join(word for word, use in zip(row, keep, strict=True) if use)
        for row, keep in zip(zip(*parts, strict=True), shown, strict=True)
    ]


def distinct_queries(rng: np.random.Generator, words: Words, cluster: np.ndarray, wanted: int) -> list[str]:
    """`wanted` different queries; clusters are asked for as often as they have items (`cluster` of each item)."""
    found: dict[str, None] = {}
    for _ in range(100):
        found |= dict.fromkeys(queries(rng, words, rng.choice(cluster, wanted)))
        if len(found) >= wanted:
            break
    chosen = list(found)[:wanted]
    rng.shuffle(chosen)
    return chosen


def item_ids(rows: np.ndarray | range) -> list[str]:
    """Ids of the items at some rows."""
    return [f"item-{at:07d}" for at in rows]


def payload(rng: np.random.Generator, words: Words, cluster: np.ndarray, first: int = 0) -> pa.Table:
    """Columns of the items from `first` on; prices are uniform below 1,000, so that `price<10` leaves one in a hundred.

    No pictures.
    """
    items = len(cluster)
    brand = _zipf(rng, (items,), _BRANDS)
    return pa.table(
        {
            "item_id": item_ids(range(first, first + items)),
            "title": titles(rng, words, cluster, brand),
            "category": words.category_name[words.category[cluster]],
            "brand": np.char.capitalize(words.brand)[brand],
            "price": np.round(1000 * rng.random(items), 3),
            "in_stock": rng.random(items) < 0.9,
            "image_status": pa.array(["missing"] * items),
            "picture_offset": np.full(items, -1),
            "picture_length": np.zeros(items, np.int64),
        }
    )
