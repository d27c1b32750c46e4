"""The report's charts: recall by slice, gain by category, what the gate thinks of queries that need the picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from smar.evaluation.bootstrap import Interval
from smar.evaluation.findings import label
from smar.evaluation.gate_quality import Gate
from smar.evaluation.measure import ComparisonRow, MetricRow

COLOURS = {"bm25": "#c9ced6", "dpsr": "#9aa5b1", "dpsr-i": "#e3b262", "multimodal": "#6fa8a0", "smar": "#c4472f"}
_OTHER = ("#7a6aa8", "#5b7fb5", "#8c8c4a", "#a86a8a", "#4f8f5b", "#b5825b", "#4a8c9c", "#8a5b4a")
_INK, _FAINT = "#2b2f36", "#d9dde2"
SHOWN_SLICES = 14
"""More slices than this make the chart unreadable; the report's table has them all."""


SHOWN_CATEGORIES = 30
"""The same for categories."""


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, (axes,) = _panels(width, height, 1)
    return figure, axes


def _panels(width: float, height: float, count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels side by side that share the vertical axis."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0].tolist()
    for axes in panels:
        _plain(axes)
    return figure, panels


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(colors=_INK, length=0, labelsize=9)
    axes.set_axisbelow(True)


def chosen_slices(rows: Sequence[MetricRow]) -> list[tuple[str, int]]:
    """Slices (name, queries) of the chart: those that are no column's value, then the largest values."""
    sizes = {row.slice: row.queries for row in rows}
    own = [name for name in sizes if "=" not in name]
    values = sorted((name for name in sizes if "=" in name), key=lambda name: -sizes[name])
    kept = {*own, *values[: max(SHOWN_SLICES - len(own), 0)]}
    return [(name, size) for name, size in sizes.items() if name in kept]


def recall_chart(path: Path, rows: Sequence[MetricRow], metric: str, note: str) -> None:
    """Grouped horizontal bars of one metric by slice and model, with 95 % intervals, written as PNG."""
    figures = {(row.slice, row.model): row for row in rows if row.metric == metric}
    models = list(dict.fromkeys(model for _, model in figures))
    slices = chosen_slices(list(figures.values()))
    figure, axes = _figure(8.5, 1.3 + len(slices) * (0.13 + 0.11 * len(models)))
    height = 0.8 / len(models)
    for number, model in enumerate(models):
        shown = [(at, figures[name, model]) for at, (name, _) in enumerate(slices)]
        value = np.array([row.value for _, row in shown])
        error = np.clip([[r.value - r.low for _, r in shown], [r.high - r.value for _, r in shown]], 0, None)
        axes.barh(
            [at + (number - (len(models) - 1) / 2) * height for at, _ in shown],
            value,
            height=height * 0.92,
            color=COLOURS.get(model.partition(" (")[0], _OTHER[number % len(_OTHER)]),  # of seeds as of one
            label=label(model),
            xerr=error,
            error_kw={"ecolor": _INK, "elinewidth": 0.8, "capsize": 1.5, "alpha": 0.75},
        )
    axes.set_yticks(range(len(slices)), [f"{name.replace('_', ' ')}\n{size:,} queries" for name, size in slices])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylim(len(slices) - 0.45, -0.55)
    axes.set_xlim(0, min(1.0, 1.04 * max(row.high for row in figures.values()) + 0.01))
    axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    axes.set_xlabel(f"{metric}, mean over queries, with 95 % interval", color=_INK, fontsize=9)
    _titles(figure, f"{metric} by slice", note)
    columns = max(1, min(4, 100 // max(len(label(model)) + 6 for model in models)))  # 100 characters fill the width
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    figure.savefig(path, format="png")


def category_chart(path: Path, gains: Sequence[ComparisonRow], routed: Mapping[str, float] | None, note: str) -> None:
    """Paired difference by category with 95 % intervals, largest gain on top; beside it the share routed to pictures.

    Args:
        path: PNG to write.
        gains: by falling value; of more than `SHOWN_CATEGORIES` those with the most queries are drawn.
        routed: slice -> share of its queries that the gate sends to the pictures; None without a gate.
        note: the line under the title.
    """
    kept = {row.slice for row in sorted(gains, key=lambda row: -row.queries)[:SHOWN_CATEGORIES]}
    rows = [row for row in gains if row.slice in kept]
    figure, panels = _panels(8.5, 1.5 + 0.27 * len(rows), 1 if routed is None else 2)
    at, value = np.arange(len(rows)), np.array([row.value for row in rows])
    error = np.clip([[r.value - r.low for r in rows], [r.high - r.value for r in rows]], 0, None)
    colours = [COLOURS["smar"] if gain > 0 else COLOURS["dpsr"] for gain in value]
    bars = {"ecolor": _INK, "elinewidth": 0.8, "capsize": 1.5, "alpha": 0.75}
    panels[0].barh(at, value, height=0.7, color=colours, xerr=error, error_kw=bars)
    panels[0].axvline(0, color=_INK, linewidth=0.8)
    panels[0].set_yticks(at, [f"{row.slice.partition('=')[2]} ({row.queries:,})" for row in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    first = rows[0]
    panels[0].set_xlabel(f"{first.metric}: {first.model} - {first.baseline}, 95 % interval", color=_INK, fontsize=9)
    if routed is not None:
        panels[1].barh(at, [routed[row.slice] for row in rows], height=0.7, color=COLOURS["multimodal"])
        panels[1].set_xlim(0, 1)
        panels[1].set_xlabel("share of queries routed to pictures", color=_INK, fontsize=9)
    for axes in panels:
        axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    _titles(figure, f"Where pictures help, by {first.slice.partition('=')[0]} (queries)", note)
    figure.savefig(path, format="png")


def gate_chart(path: Path, gate: Gate, threshold: float, note: str) -> None:
    """Histogram of the gate's probability, queries that need the picture against those whose words suffice.

    Args:
        path: PNG to write.
        gate: with `needs_image`; without it one histogram of all queries is drawn.
        threshold: from this share of needs_image on a query needs the picture.
        note: the line under the title.
    """
    figure, axes = _figure(7, 3.4)
    bins = np.linspace(0, 1, 26)
    if gate.needs_image is None:
        parts = [("all queries", np.ones(len(gate.probability), dtype=bool), COLOURS["smar"])]
    else:
        parts = [
            ("words suffice", gate.needs_image == 0, COLOURS["dpsr"]),
            ("needs the picture", gate.needs_image >= threshold, COLOURS["smar"]),
        ]
    for name, mask, colour in parts:
        values = gate.probability[mask]
        weight = np.full(len(values), 1 / max(len(values), 1))
        label = f"{name} ({len(values):,} queries)"
        axes.hist(values, bins.tolist(), weights=weight, color=colour, alpha=0.72, label=label, edgecolor="white")
    axes.axvline(gate.threshold, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    right = gate.threshold < 0.7
    axes.annotate(
        f"p > {gate.threshold:.2g}: pictures",
        (gate.threshold, 0.98),
        xytext=(6 if right else -6, 0),
        ha="left" if right else "right",
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        fontsize=8,
        color=_INK,
    )
    axes.set_xlim(0, 1)
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_xlabel("image probability of the gate", color=_INK, fontsize=9)
    axes.set_ylabel("share of queries", color=_INK, fontsize=9)
    _titles(figure, "What the gate decides", note)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, format="png")


def interval_chart(path: Path, figures: Sequence[tuple[str, Interval]], metric: str, title: str, note: str) -> None:
    """One figure a line with its 95 % interval, written as PNG; a dashed line stands at the first one's value."""
    figure, axes = _figure(7.5, 1.2 + 0.28 * len(figures))
    value = np.array([interval.value for _, interval in figures])
    error = [[i.value - i.low for _, i in figures], [i.high - i.value for _, i in figures]]
    colours = [COLOURS["smar"] if at == 0 else COLOURS["multimodal"] for at in range(len(figures))]
    axes.axvline(value[0], color=COLOURS["smar"], linewidth=1, linestyle=(0, (4, 3)))
    axes.errorbar(value, range(len(figures)), xerr=np.clip(error, 0, None), fmt="none", ecolor=colours, elinewidth=1.6)
    axes.scatter(value, range(len(figures)), c=colours, s=26, zorder=3)
    axes.set_yticks(range(len(figures)), [name for name, _ in figures])
    axes.set_ylim(len(figures) - 0.4, -0.6)
    axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    axes.set_xlabel(f"{metric}, mean over queries, with 95 % interval", color=_INK, fontsize=9)
    _titles(figure, title, note)
    figure.savefig(path, format="png")


def curve_chart(
    path: Path, lines: Mapping[str, Sequence[tuple[float, Interval]]], x_label: str, metric: str, note: str
) -> None:
    """A metric against its cost, one line a name, points (x, figure with interval) in order of x; written as PNG."""
    figure, axes = _figure(7, 4)
    for number, (name, points) in enumerate(lines.items()):
        x, y = [at for at, _ in points], [interval.value for _, interval in points]
        error = [[i.value - i.low for _, i in points], [i.high - i.value for _, i in points]]
        colour = COLOURS.get(name, _OTHER[number % len(_OTHER)])
        axes.errorbar(x, y, yerr=np.clip(error, 0, None), color=colour, marker="o", capsize=2, label=name)
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.set_xlabel(x_label, color=_INK, fontsize=9)
    axes.set_ylabel(metric, color=_INK, fontsize=9)
    _titles(figure, f"{metric} by budget", note)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, format="png")


def _titles(figure: Figure, title: str, note: str) -> None:
    figure.suptitle(f"{title}\n{note}" if note else title, color=_INK, fontsize=11, x=0.02, ha="left")
