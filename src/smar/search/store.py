"""What one engine has to do (`Store`), and what stands in it beside a version (`About`).

An engine keeps one row an item: the wide vector ``[S_m ; S_t]``, so that one inner product ranks in every mode, the
item's columns (`stored`), and where its picture lies. Query encoder and pictures stay in a folder. What was loaded
together is a version; it says by itself of which model it is and never changes but by upserts and deletes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from smar.search.column_values import Kind
from smar.search.counts import ColumnCounts
from smar.search.engine_counts import counted_ranges, counted_values
from smar.search.predicates import Predicate
from smar.search.protocol import Mode
from smar.search.ranked import Vectors
from smar.search.stored import ID, Column, Stored


class About(BaseModel):
    """What stands in the engine beside a version.

    `effort` is how hard the engine searches, by mode; `borders` are those of the ranges of number columns.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["smar-engine/1"] = "smar-engine/1"
    fingerprint: str
    kind: str
    dim: int
    columns: str
    folder: str
    created: str
    effort: dict[Mode, int] = {}
    recall: dict[Mode, float] = {}
    borders: dict[str, tuple[float, ...]] = {}

    @cached_property
    def stored(self) -> Stored:
        """How the columns are held."""
        return Stored.read(self.columns, self.dim)


class Store(ABC):
    """One engine. `version` names what was loaded together; see `About`.

    Methods raise EngineDown where the engine does not answer, and InputError where it refuses what it is given.
    """

    name: ClassVar[str]
    alone = False
    """Whether one process at a time can open it."""

    @abstractmethod
    def published(self) -> tuple[str, str] | None:
        """The version that is searched, and its `About`; None where there is none."""

    @abstractmethod
    def create(self, stored: Stored, key: str) -> tuple[str, bool]:
        """A version without rows, beside the one that is searched; or, with True, what a load of this key has begun."""

    @abstractmethod
    def append(self, version: str, rows: pa.Table, again: bool) -> None:
        """Add rows (`Stored.table`) whose ids are new, the last one last; several processes may do so at once.

        `again`: some of them may be there since a load that was killed, but not the last one.
        """

    def held(self, version: str, stored: Stored, ids: Sequence[str]) -> set[str]:
        """Which ids a version has that is not finished."""
        return set(self.rows(version, stored, ids)[ID].to_pylist())

    @abstractmethod
    def drop(self, version: str) -> None:
        """Delete a version."""

    @abstractmethod
    def finish(self, version: str, stored: Stored) -> tuple[int, ...]:
        """Index all rows; returns the efforts that a search may take, ascending (one where it is always exact)."""

    @abstractmethod
    def publish(self, version: str, about: str) -> None:
        """Search this version from now on, at once and for everyone; the one before is kept, older ones go."""

    @abstractmethod
    def rollback(self) -> str:
        """Search the version before again; returns its name."""

    @abstractmethod
    def nearest(
        self, version: str, stored: Stored, wide: Vectors, k: int, predicate: Predicate | None, effort: int
    ) -> pa.Table:
        """The `k` rows (`Stored.held`) with the largest inner product with `wide` [2k], in any order."""

    @abstractmethod
    def rows(self, version: str, stored: Stored, ids: Sequence[str]) -> pa.Table:
        """The rows of some ids; those that are not there are left out."""

    @abstractmethod
    def count(self, version: str, predicate: Predicate | None) -> int:
        """How many rows match."""

    @abstractmethod
    def values(self, version: str, fields: Sequence[Column], predicate: Predicate | None) -> pa.Table:
        """Some columns of all rows that match."""

    @abstractmethod
    def write(self, version: str, rows: pa.Table) -> None:
        """Upsert rows; durable, and found by every later search, once it has returned."""

    @abstractmethod
    def remove(self, version: str, ids: Sequence[str]) -> int:
        """Delete rows; returns how many there were."""

    def counts(
        self, version: str, column: Column, predicate: Predicate | None, top: int, borders: Sequence[float]
    ) -> ColumnCounts:
        """A facet; engines that can count do so themselves."""
        values = self.values(version, [column], predicate)[column.field].combine_chunks()
        if column.kind in (Kind.NUMBER, Kind.MOMENT):
            return counted_ranges(values, column, top, borders)
        lists = values if column.kind is Kind.LIST else pc.make_struct(values, field_names=["value"])
        return counted_values(lists.to_pylist(), column, top)

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and files."""
