"""Synonyms among a query's words: a part of the query counts as one word, which any of its names stands for.

An item gets the weight of the name that gives it most. All names of a part share one idf, that of a word which all
items hold that hold one of them (as in Lucene's SynonymQuery): else the rarest name would win, and one of several words
would count more than one of a single word.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from smar.data.words import words
from smar.search.expansion import Expansion
from smar.search.local.postings import Reading, WordQuery
from smar.search.local.word_index import WordIndex

Name = tuple[str, ...]


def with_synonyms(query: WordQuery, base: WordIndex, expansion: Expansion, held: Callable[[str], bool]) -> WordQuery:
    """The query with synonyms for its parts; `held` says whether any item holds a word.

    A part stays as it is where no item holds another name of it.
    """
    counts, synonyms = Counter(query.counts), dict[str, list[Reading]]()
    for typed, others in expansion.parts:
        own, *further = (tuple(words(name, base.language)) for name in (typed, *others))
        names = [name for name in dict.fromkeys((own, *further)) if name and all(map(held, name))]
        if not set(names) - {own} or not Counter(own) <= counts:
            continue
        counts -= Counter(own)
        key = " ".join(own)  # words hold no blank, so that of several is none of the query's
        counts[key] += 1
        synonyms[key] = _readings(names, base)
    return replace(query, counts=dict(counts), synonyms=synonyms)


def _readings(names: list[Name], base: WordIndex) -> list[Reading]:
    alone = [name[0] for name in names if len(name) == 1]
    sums = {name: sum(map(base.idf, name)) for name in names}
    shared = base.idf(*alone) if alone else min(sums.values())
    return [tuple((word, shared / sums[name]) for word in name) for name in names]
