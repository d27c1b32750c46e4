"""What a facet counts: how often each value of a column occurs, or how many numbers lie between round borders."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import numpy.typing as npt

from smar.search.column_values import Columns, Kind

PRICE_RANGES = 6
_SAMPLE = 50_000


class ValueCount(msgspec.Struct, frozen=True):
    """Items with a value, named as a filter names it."""

    value: str
    count: int


class RangeCount(msgspec.Struct, frozen=True):
    """Items with ``low <= value < high``; None where a range is open."""

    low: float | str | None
    high: float | str | None
    count: int


@dataclass(frozen=True, slots=True)
class ColumnCounts:
    """One facet: `missing` items have no value; `low` and `high` are the lowest and highest of the others."""

    missing: int
    values: tuple[ValueCount, ...] | None = None
    ranges: tuple[RangeCount, ...] | None = None
    low: float | str | None = None
    high: float | str | None = None


def round_borders(
    numbers: npt.NDArray[np.float64], ranges: int = PRICE_RANGES, whole: bool = False
) -> npt.NDArray[np.float64]:
    """Ascending numbers between which about equal parts of `numbers` lie: round ones, or any `whole` ones."""
    if not len(numbers):
        return np.empty(0)
    some = numbers[:: len(numbers) // _SAMPLE + 1]  # the cuts are rounded anyway
    cuts = np.quantile(some, np.linspace(0, 1, ranges + 1)[1:-1])
    return np.unique([np.round(cut) if whole else _round(float(cut)) for cut in cuts])


def _round(price: float) -> float:
    """The nearest number of the form 1, 1.5, 2, 2.5, 3, 4, 5, 6 or 8 times a power of ten."""
    if price <= 0:
        return -_round(-price) if price else 0.0
    power = 10.0 ** np.floor(np.log10(price))
    return float(power * min((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10), key=lambda digit: abs(digit - price / power)))


def day(days: float) -> str:
    """Days since 1970 as a date, with the time where it is not midnight."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=round(days * 86_400e6))
    return moment.date().isoformat() if moment.time() == datetime.min.time() else moment.isoformat()


def column_borders(columns: Columns, name: str) -> npt.NDArray[np.float64]:
    """Inner borders of the ranges of a column of numbers or dates, in its own unit; whole days of dates."""
    numbers = columns.numbers(name)[columns.present(name)] / columns.unit(name)
    return round_borders(numbers[np.isfinite(numbers)], whole=columns.kind(name) is Kind.MOMENT)
