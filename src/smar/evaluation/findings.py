"""What an evaluation found: everything that the report, the charts and the terminal show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from smar.evaluation.examples import Example, RoutedQuery
from smar.evaluation.gate_quality import Gate
from smar.evaluation.hidden import HIDDEN
from smar.evaluation.measure import ComparisonRow, MetricRow
from smar.evaluation.slices import ALL

COLD = "cold_items"
LABELS = {
    "bm25": "BM25",
    "dpsr": "DPSR (words only)",
    "dpsr-i": "DPSR-i (pictures only)",
    "multimodal": "always multimodal",
    "smar": "SMAR (adaptive)",
    "hybrid": "BM25 and DPSR (reciprocal ranks)",
    "hybrid-zero-shot": "BM25 and zero-shot (reciprocal ranks)",
    "zero-shot": "zero-shot (before training)",
    "predecessor": "the run that it went on from",
    "text": "always text",
    "image": "its picture vectors",
    "route": "hard routing",
    "random-gate": "random gate",
    "oracle-gate": "oracle gate (upper bound)",
    "shuffled": "shuffled pictures",
    "no-pictures": "no pictures",
}
KEY_SLICES = {ALL: "all queries", COLD: "cold items", HIDDEN: "hidden"}
"""Slices that stand wherever recall does, where the data have them: a text tower knows clicked items by heart."""


def label(model: str) -> str:
    """How tables and charts call a model."""
    name, bracket, seeds = model.partition(" (")
    run, slash, kind = name.rpartition("/")
    if (start := kind.removeprefix("zero-shot-")) != kind:
        return f"{run}{slash}{LABELS.get(start, start)}, {LABELS['zero-shot']}{bracket}{seeds}"
    return run + slash + LABELS.get(kind, kind) + bracket + seeds


@dataclass(frozen=True)
class Facts:
    """What the report says of its making.

    note: what kind of data this is, for example "generated shop, simulated log" (empty: the user's own).
    rows: (what, value) pairs, counts and settings; training_seconds: model -> seconds.
    needs_image: from this share on a query counts as needing the picture.
    """

    note: str = ""
    rows: Sequence[tuple[str, object]] = ()
    training_seconds: Mapping[str, float] = field(default_factory=dict)
    needs_image: float = 0.5


@dataclass(frozen=True)
class Findings:
    """The content of a report.

    rows: of `measure`, slice `all` among them; comparisons: likewise, may be empty.
    controls: names of the models that are controls; all others are shown in the charts.
    seeds: row of several seeds -> the rows it is the mean of, which stand in the section on seeds only.
    own, reference: the models whose difference is shown by slice and category; reference None where there is no other.
    left_out: (slice, queries) that were too small.
    gates: of every model that has one, the first run's first.
    examples: queries gained and lost; routed: queries at the two ends of the first gate.
    pictures: item row -> path of its picture from the report.
    categories: the slice column of the chart by category, "" for none.
    """

    rows: Sequence[MetricRow]
    comparisons: Sequence[ComparisonRow] = ()
    facts: Facts = Facts()
    controls: frozenset[str] = frozenset()
    seeds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    own: str = "smar"
    reference: str | None = None
    left_out: Sequence[tuple[str, int]] = ()
    gates: Sequence[Gate] = ()
    examples: Sequence[Example] = ()
    routed: tuple[Sequence[RoutedQuery], Sequence[RoutedQuery]] = ((), ())
    pictures: Mapping[int, str] = field(default_factory=dict)
    categories: str = ""

    @property
    def recall(self) -> str:
        """The recall metric's name, "R@50" for k = 50."""
        return next(row.metric for row in self.rows if row.metric.startswith("R@"))

    @property
    def shown(self) -> list[str]:
        """Models of the tables: all but single seeds, in the order of the rows."""
        single = {name for members in self.seeds.values() for name in members}
        return [name for name in dict.fromkeys(row.model for row in self.rows) if name not in single]

    @property
    def models(self) -> list[str]:
        """The shown models that are no controls."""
        return [name for name in self.shown if name not in self.controls]

    @property
    def routed_shares(self) -> Mapping[str, float] | None:
        """Slice -> share of its queries that the own model's gate sends to the pictures, mean over its seeds."""
        own = self.seeds.get(self.own, [self.own])
        gates = [gate.routed for gate in self.gates if gate.model in own]
        return {name: sum(gate[name] for gate in gates) / len(gates) for name in gates[0]} if gates else None

    @property
    def slices(self) -> dict[str, int]:
        """Slice -> queries, in the order of the rows."""
        return {row.slice: row.queries for row in self.rows}

    @property
    def found(self) -> dict[tuple[str, str, str], MetricRow]:
        """(model, slice, metric) -> row."""
        return {(row.model, row.slice, row.metric): row for row in self.rows}

    def compared(self, baseline: str | None) -> dict[str, ComparisonRow]:
        """Slice -> the comparison of `own` with this model."""
        return {row.slice: row for row in self.comparisons if (row.model, row.baseline) == (self.own, baseline)}

    def gains(self) -> list[ComparisonRow]:
        """The comparisons with the reference by category, largest gain first."""
        start = f"{self.categories}="
        rows = [row for name, row in self.compared(self.reference).items() if name.startswith(start)]
        return sorted(rows, key=lambda row: -row.value) if self.categories else []
