"""A search that was asked, checked: limits, normal form, mode, filter."""

from dataclasses import dataclass, field
from functools import lru_cache

import pyarrow as pa

from smar.core.errors import InputError, member
from smar.data.text import normalise
from smar.search.filter_parser import check_length, parse_filter
from smar.search.filters import Filter
from smar.search.local import PLAIN, Shape, check_place
from smar.search.protocol import Mode
from smar.serving.requests import MAX_K, MAX_QUERY


class RequestError(InputError):
    """A request that cannot be answered; `code` names the reason for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Question:
    """A search that was asked: `query` in its normal form, the rest as given. Equal questions have equal answers.

    `k` hits are wanted from number `offset` + 1 on; without a query, of what the filter leaves. `fields` are the
    columns that the answer shows, None for all, and `highlight` those whose matched words it marks. `session` decides
    which of several indexes that are compared is asked, and is no part of the question.
    """

    query: str
    k: int = 10
    mode: Mode = Mode.ADAPTIVE
    filter: str | None = None
    explain: bool = False
    offset: int = 0
    shape: Shape = PLAIN
    fields: tuple[str, ...] | None = None
    highlight: tuple[str, ...] = ()
    session: str | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        query: str,
        k: int,
        mode: Mode | str,
        filter: str | None,
        explain: bool = False,
        offset: int = 0,
        shape: Shape = PLAIN,
        fields: tuple[str, ...] | None = None,
        highlight: tuple[str, ...] = (),
        session: str | None = None,
    ) -> "Question":
        """Checked.

        Raises:
            RequestError: the query is too long, or empty where there is no filter, sort or facet; k or the offset is
                out of range, or the mode unknown.
        """
        mode = check_mode(mode)
        if not 1 <= k <= MAX_K:
            raise RequestError("invalid_request", f"k is {k}; allowed: 1 to {MAX_K}.")
        check_place(offset, k)
        filter = check_filter(filter)
        query = check_query(query, empty=bool(filter or shape.rank or shape.sort or shape.facets))
        return cls(query, k, mode, filter, explain, offset, shape, fields, highlight, session)

    @property
    def browses(self) -> bool:
        """Whether nothing is asked but what the filter leaves, or how it sorts."""
        return not self.query


class FilterParser:
    """Filters as requests have them; the latest 256 are kept.

    >>> FilterParser()("  ", pa.schema({"price": pa.float64()})) is None
    True
    """

    def __init__(self) -> None:
        self._parsed = lru_cache(maxsize=256)(parse_filter)

    def __call__(self, text: str | None, schema: pa.Schema) -> Filter | None:
        """The parsed filter, None when it is blank; raises RequestError when it is wrong."""
        if (text := check_filter(text)) is None:
            return None
        try:
            return self._parsed(text, schema)
        except InputError as error:
            raise RequestError("invalid_filter", str(error)) from None


def check_filter(text: str | None) -> str | None:
    """The filter, None where it is blank; raises RequestError when it is too long to be one."""
    try:
        check_length(text or "")
    except InputError as error:
        raise RequestError("invalid_filter", str(error)) from None
    return text if text and text.strip() else None


def check_mode(mode: Mode | str) -> Mode:
    """The mode of this name; raises RequestError, which lists them, when there is none."""
    try:
        return member(Mode, mode, "mode")
    except InputError as error:
        raise RequestError("invalid_request", str(error)) from None


def check_query(query: str, where: str = "", empty: bool = False) -> str:
    """The query as the model was trained to see it; raises RequestError when it is too long, or may not be `empty`."""
    if len(query) > MAX_QUERY:
        raise RequestError(
            "query_too_long",
            f"{where}the query has {len(query):,} characters; at most {MAX_QUERY:,} are allowed.",
        )
    normal = normalise(query.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate has no UTF-8 form
    if not normal and not empty:
        raise RequestError(
            "empty_query", f"{where}the query is empty; type what to search for, or give a filter or a sort to browse."
        )
    return normal
