"""Two models on one shop: a search that names no index is answered by one of those that are compared, or by two.

*Split*: each session is answered by one index, in shares. *Interleaved*: both rankings make one list by team draft
(Radlinski, Kurup and Joachims, CIKM 2008, algorithm 2), and each hit tells which of them put it there. Both follow from
a hash of the session, or of the query where no session is given, so all pages of a query are of one list.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import msgspec
import numpy as np

from smar.search.local import PLAIN, Relation, Shape, Total, UnreadableIndex
from smar.serving import prometheus
from smar.serving.answered import SESSION
from smar.serving.answers import BASE, as_json, hits_out, result_out, server_timing
from smar.serving.engine import SearchResult
from smar.serving.events import Events
from smar.serving.highlight import marked
from smar.serving.options import ServiceOptions
from smar.serving.question import Question
from smar.serving.routes import Searches
from smar.serving.several import Served

_DIGEST = 64
_VARY = {"Vary": SESSION.title()}
_read_hits = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def compared(served: Mapping[str, Served], options: ServiceOptions, events: Events | None) -> Searches:
    """What answers searches that name no index, where `options` compare some of those served."""
    if options.interleave:
        first, second = options.interleave
        return Interleaved(served, (first, second), events)
    return Split(served, dict(options.split), events)


def drawn(*key: str) -> bytes:
    """512 even bits that depend on `key` alone."""
    return hashlib.blake2b(msgspec.json.encode(key), digest_size=_DIGEST).digest()


def share_of(shares: Mapping[str, float], key: str) -> str:
    """The name that falls to `key`: each to its share of all keys, and always the same one to the same key.

        share_of({"a": 50, "b": 50}, "session-1")

    Another share of the same names moves as few keys as it can.
    """
    at = int.from_bytes(drawn(*shares, key)[:8], "big") / 2**64 * sum(shares.values())
    ends = accumulate(shares.values())
    return next((name for name, end in zip(shares, ends, strict=True) if at < end), list(shares)[-1])


class Pick(NamedTuple):
    """An item of an interleaved list: `place` in the ranking number `ranking`; `team` None where none drafted it."""

    ranking: int
    place: int
    team: int | None


def team_draft(first: Sequence[str], second: Sequence[str], length: int, coin: Callable[[], int]) -> list[Pick]:
    """At most `length` items of two rankings of ids, by team draft.

    In each round both teams pick their best item that is not there yet; `coin` (0 or 1) says whose turn is first. What
    is left of one ranking after the end of the other follows, and counts for no team.

        >>> [(pick.ranking, pick.place) for pick in team_draft("abcdgh", "beafgh", 4, lambda: 0)]
        [(0, 0), (1, 0), (0, 2), (1, 1)]
    """
    rankings, places, sizes = (first, second), [0, 0], [0, 0]
    picks, taken = list[Pick](), set[str]()
    while len(picks) < length:
        for at, ranking in enumerate(rankings):
            while places[at] < len(ranking) and ranking[places[at]] in taken:
                places[at] += 1
        left = [at for at in (0, 1) if places[at] < len(rankings[at])]
        if not left:
            break
        even = sizes[0] == sizes[1]
        turn = left[0] if len(left) == 1 else coin() if even else int(sizes[0] > sizes[1])
        picks.append(Pick(turn, places[turn], turn if len(left) == 2 else None))
        taken.add(rankings[turn][places[turn]])
        sizes[turn] += 1
    return picks


def coins(*key: str) -> Callable[[], int]:
    """A coin whose throws depend on `key` alone: enough for 1,000 hits, which are 500 rounds."""
    bits: Iterator[int] = iter(np.unpackbits(np.frombuffer(drawn(*key), np.uint8)).tolist())
    return lambda: next(bits)


class Split(Searches):
    """Searches that one of several indexes answers, each of them its share of the sessions."""

    def __init__(self, served: Mapping[str, Served], shares: Mapping[str, float], events: Events | None = None) -> None:
        options = next(iter(served.values())).options
        self._log_query = options.log == "queries"
        self._served, self._shares, self._events = served, shares, events

    async def _found(self, question: Question, note: Callable[..., None]) -> tuple[bytes, dict[str, str]]:
        name = share_of(self._shares, question.session or question.query)
        searches = self._searches(name)
        BASE.set(self._served[name].base)
        answer, headers = await searches._found(question, lambda **more: note(variant=name, **more))
        return b'{"variant":' + as_json(name) + b"," + answer[1:], headers | _VARY

    def _searches(self, name: str) -> Searches:
        """Raises UnreadableIndex while it cannot be read."""
        if (searches := self._served[name].searches) is None:
            raise UnreadableIndex(f"index {name} cannot be read now.")
        return searches


class Interleaved(Split):
    """Searches that two indexes answer together.

    What is sorted, put into cards or browsed has no ranking to compare: the first one answers it, and it counts for
    no team.
    """

    def __init__(self, served: Mapping[str, Served], names: tuple[str, str], events: Events | None = None) -> None:
        super().__init__(served, dict.fromkeys(names, 1.0), events)
        self._names = names

    async def _found(self, question: Question, note: Callable[..., None]) -> tuple[bytes, dict[str, str]]:
        shape = question.shape
        if question.browses or shape.sort or shape.collapse or shape.diversify:
            BASE.set(self._served[self._names[0]].base)
            return await self._searches(self._names[0])._found(question, note)
        whole = replace(question, k=question.offset + question.k, offset=0)
        asked = whole, replace(whole, shape=_bare(shape))  # facets are the first one's
        both = [self._searches(name) for name in self._names]
        for name in self._names:
            prometheus.count(prometheus.SEARCHES, name)
        first, second = await asyncio.gather(*(one.result(each) for one, each in zip(both, asked, strict=True)))
        seen = question.session or ""
        coin = coins(*self._names, seen, question.query, question.mode, question.filter or "")
        picks = team_draft(_ids(first), _ids(second), whole.k, coin)[question.offset :]
        note(variant="interleaved", hits=len(picks))
        timings = {stage: spent + second.timings.get(stage, 0.0) for stage, spent in first.timings.items()}
        prometheus.observe_stages(timings)
        return self._joined((first, second), picks, question), server_timing(timings) | _VARY

    def _joined(self, results: tuple[SearchResult, SearchResult], picks: Sequence[Pick], asked: Question) -> bytes:
        """The answer: what it says of the query is the first one's."""
        hits: list[Iterator[dict[str, msgspec.Raw]]] = []
        for at, (name, result) in enumerate(zip(self._names, results, strict=True)):
            BASE.set(self._served[name].base)
            hits.append(iter(_shown(result, [pick.place for pick in picks if pick.ranking == at], asked)))
        joined = []
        for rank, pick in enumerate(picks, start=asked.offset + 1):
            team = None if pick.team is None else self._names[pick.team]
            told = {"rank": rank, "team": team}
            joined.append(next(hits[pick.ranking]) | {key: msgspec.Raw(as_json(each)) for key, each in told.items()})
        first = results[0]
        totals = [result.page.total for result in results]
        exact = totals[0] == totals[1]
        total = totals[0] if exact else Total(max(each.value for each in totals), Relation.AT_LEAST)
        near = None if joined else first.page.near
        empty = replace(first.page, hits=first.found.pick(np.empty(0, np.int64)), total=total, near=near)
        empty = replace(empty, factors=None, moved=None)
        told = result_out(replace(first, page=empty), asked.fields)
        return as_json({"interleaved": self._names, **told, "hits": joined})


def _bare(shape: Shape) -> Shape:
    """Without facets."""
    rest = replace(shape, facets=None)
    return rest if rest.rank else PLAIN


def _ids(result: SearchResult) -> list[str]:
    return [result.index.catalogue.item_id(row) for row in result.found.rows.tolist()]


def _shown(result: SearchResult, places: list[int], asked: Question) -> list[dict[str, msgspec.Raw]]:
    """The hits at `places` of a result."""
    page, hits = result.page, result.page.hits.pick(np.array(places, np.int64))
    factors = None if page.factors is None else [page.factors[at] for at in places]
    moved = None if page.moved is None else [page.moved[at] for at in places]
    page = replace(page, hits=hits, factors=factors, moved=moved)
    marks = marked(replace(result, page=page), asked.highlight) if asked.highlight else None
    return _read_hits(bytes(hits_out(result.index, page, asked.fields, marks)))
