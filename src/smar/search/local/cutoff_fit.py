"""The cut-off of an index, fitted to validation clicks and made-up queries, and measured on those of the other half.

Whether anything answers a query is learned from the log's queries and as many made-up ones, with odds that let `RECALL`
of the log's pass, and up to `MOST_RECALL` where at most `PASSING` of the made-up ones then do: clicked queries are the
easier ones, and those that pictures alone answer come next. Whether a hit is relevant is learned from the log's
queries: clicked hits are, all others count as irrelevant, and hits are cut off where `KEPT` of the clicked ones stay.
Made-up queries that are mixed of the log's words teach that several words want to be met at once; as something may well
answer them, no figure counts them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.progress import track
from smar.search.embeddings import sample_clicks
from smar.search.local.cutoff import HEAD, Cutoff, Floats, Measured, ModeCutoff
from smar.search.local.cutoff_scores import measure
from smar.search.local.fusion import blend_of
from smar.search.local.nonsense import nonsense
from smar.search.protocol import Mode
from smar.search.ranked import Ranked

if TYPE_CHECKING:
    from smar.search.local.open_version import EmbeddedIndex

RECALL = 0.97
MOST_RECALL = 0.99
PASSING = 0.01
KEPT = 0.95
LEAST_QUERIES = 100
_MOST_QUERIES = 300  # the standard error of a share of 0.95 among as many is 0.013
_DEPTH = 200
_LEAST_PRECISION, _LEAST_RECALL = 0.9, 0.5  # measured; less is no use
_RIDGE = 1e-3
_STEPS = 30
_BATCH = 64
Bools = npt.NDArray[np.bool_]


class _NoUse(Exception):
    """Why a mode has no cut-off."""


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Queries of the log and made-up ones, in turn: `real` and `mixed` [n], see `MadeUp`.

    `scores` [n, hits] are best first, and `clicked` says which hits were.
    """

    real: Bools
    mixed: Bools
    scores: Floats
    clicked: Bools
    measured: Measured

    def part(self, places: slice) -> Self:
        """Some of the queries."""
        known = self.measured
        parts = (known.mean[places], known.deviation[places], known.best[places], known.features[places])
        own = (self.real[places], self.mixed[places], self.scores[places], self.clicked[places])
        return type(self)(*own, Measured(*parts))

    def odds(self, fit: ModeCutoff) -> Floats:
        """Log odds of every hit [n, hits]."""
        level, slope = self.measured.line(fit)
        return level[:, None] + slope[:, None] * (self.scores - self.measured.mean[:, None])

    def inputs(self) -> Floats:
        """What the odds are linear in, of every hit [n, hits, 2 + features]."""
        known, raised = self.measured, self.scores - self.measured.mean[:, None]
        own = [raised / known.deviation[:, None], raised / np.maximum(known.best - known.mean, 1e-6)[:, None]]
        shape = (*self.scores.shape, known.features.shape[1])
        return np.concatenate([np.stack(own, axis=2), np.broadcast_to(known.features[:, None], shape)], axis=2)


def fit_cutoff(index: "EmbeddedIndex", valid: pa.Table | None) -> Cutoff:
    """Fit each mode; one that has no use says why."""
    wanted = {} if valid is None else _rows(index, valid)
    if len(wanted) < LEAST_QUERIES:
        why = f"{len(wanted)} validation queries have a clicked item here, and {LEAST_QUERIES} are needed to fit one"
        return Cutoff(queries=len(wanted), refused=dict.fromkeys(Mode, why))
    modes, refused = {}, {}
    for mode in track(list(Mode), "fit cut-off"):
        try:
            modes[mode] = _fit_mode(index, wanted, mode)
        except _NoUse as why:
            refused[mode] = str(why)
    return Cutoff(queries=len(wanted), modes=modes, refused=refused)


def _rows(index: "EmbeddedIndex", valid: pa.Table) -> dict[str, set[int]]:
    found = {
        query: {row for row in map(index.catalogue.row_of, ids) if row is not None}
        for query, ids in sample_clicks(valid, _MOST_QUERIES).items()
    }
    return {query: rows for query, rows in found.items() if rows}


def _fit_mode(index: "EmbeddedIndex", wanted: dict[str, set[int]], mode: Mode) -> ModeCutoff:
    if mode is Mode.HYBRID and blend_of(index.manifest.hybrid) is None:
        raise _NoUse("it adds up ranks, which say nothing of how well the best hit fits")
    trial = _try(index, wanted, mode)
    half = len(trial.real) // 4 * 2  # real and made-up ones come in pairs
    parts = [trial.part(slice(half)), trial.part(slice(half, None))]
    measured = [_worth(other, _fit(own)) for own, other in (parts, parts[::-1])]
    precision, recall, kept, hits = np.mean(measured, axis=0).tolist()
    if precision < _LEAST_PRECISION or recall < _LEAST_RECALL:
        raise _NoUse(
            f"scores do not tell the log's queries from made-up ones (precision {precision:.3f}, recall {recall:.3f})"
        )
    figures = {"precision": precision, "recall": recall, "kept": kept, "hits": hits}
    return _fit(trial).model_copy(update={name: round(value, 4) for name, value in figures.items()})


def _try(index: "EmbeddedIndex", wanted: dict[str, set[int]], mode: Mode) -> _Trial:
    """Search the queries, each with a made-up one beside it."""
    made = nonsense(list(wanted), index.unheld, seed=1)
    asked = [text for query, other in zip(wanted, made, strict=True) for text in (query, other.text)]
    depth = min(_DEPTH, len(index))
    found: list[Ranked] = []
    parts = []
    for start in range(0, len(asked), _BATCH):
        vectors = index.encoder.encode(asked[start : start + _BATCH])
        ranked = index.rank(vectors, max(depth, min(HEAD, len(index))), mode)
        parts.append(measure(index, vectors, mode, ranked))
        found += ranked
    names = ("mean", "deviation", "best", "features")
    measured = Measured(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    real, mixed = np.arange(len(asked)) % 2 == 0, np.repeat([other.mixed for other in made], 2)
    clicked = [
        np.isin(ranked.rows[:depth], list(wanted[query] if yes else ()))
        for ranked, query, yes in zip(found, asked, real.tolist(), strict=True)
    ]
    scores = np.array([ranked.score[:depth] for ranked in found], np.float64)
    return _Trial(real, mixed & ~real, scores, np.array(clicked), measured)


def _fit(trial: _Trial) -> ModeCutoff:
    """The functions, whose odds are 1 where they decide; the figures are those of nothing yet."""
    known, even = trial.measured.features, np.full(len(trial.real), 1 / len(trial.real))
    answered = _logistic(known, trial.real, even, np.ones(known.shape[1], np.bool_))
    odds = known @ answered[:-1] + answered[-1]
    least, most = np.quantile(odds[trial.real], [1 - MOST_RECALL, 1 - RECALL])
    made = np.quantile(odds[~trial.real & ~trial.mixed], 1 - PASSING)
    answered[-1] -= min(max(least, made), most)
    solved = _fit_hits(trial.inputs()[trial.real], trial.clicked[trial.real])
    figures = dict.fromkeys(("precision", "recall", "kept", "hits"), 0.0)
    weights = {"weights": tuple(solved[2:-1].tolist()), "answered": tuple(answered.tolist())}
    return ModeCutoff(score=solved[0], lead=solved[1], bias=solved[-1], **weights, **figures)


def _fit_hits(inputs: Floats, clicked: Bools) -> Floats:
    """Weights of a hit's inputs [n, hits, d] and a bias [d + 1], with which `KEPT` of the clicked ones are not below 0.

    Raises:
        _NoUse: clicked hits have no higher scores.
    """
    if not clicked.any():
        raise _NoUse(f"no clicked item is among the best {_DEPTH} hits of its query")
    x, y = inputs.reshape(-1, inputs.shape[2]), clicked.ravel()
    share = float(y.mean())
    weight = np.where(y, 1 / share, 1 / max(1 - share, 1e-9)) / len(y)  # clicked ones as much together as the others
    free = np.ones(x.shape[1], np.bool_)
    while (wrong := (solved := _logistic(x, y, weight, free))[:2] < 0).any():
        free[:2] &= ~wrong  # the odds may not fall where the score rises
    if not solved[:2].any():
        raise _NoUse("clicked hits have no higher scores than others")
    solved[-1] -= np.quantile(x[y] @ solved[:-1] + solved[-1], 1 - KEPT)
    return solved


def _logistic(x: Floats, y: Bools, weight: Floats, free: Bools) -> Floats:
    """Weights of the columns of `x` [n, d] and a bias [d + 1], by Newton's method; 0 where not `free`."""
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    ones = np.ones((len(x), 1))
    scaled = np.concatenate([(x - mean) / scale * free, ones], axis=1)
    solved: Floats = np.zeros(scaled.shape[1])
    ridge = np.diag(np.append(np.full(x.shape[1], _RIDGE), 0.0))
    for _ in range(_STEPS):
        odds = 1 / (1 + np.exp(-np.clip(scaled @ solved, -30, 30)))
        gradient = scaled.T @ (weight * (odds - y)) + ridge @ solved
        hessian = (scaled * (weight * odds * (1 - odds))[:, None]).T @ scaled + ridge
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(solved)), gradient)
        solved -= step
        if np.abs(step).max() < 1e-6:
            break
    weights = solved[:-1] / scale * free
    return np.append(weights, solved[-1] - weights @ mean)


def _worth(trial: _Trial, fit: ModeCutoff) -> tuple[float, float, float, float]:
    """Precision, recall, kept and hits on queries that the functions were not fitted to."""
    passes = trial.measured.answered(fit) >= 0
    stays = (trial.odds(fit) >= 0) & passes[:, None]
    real, made = (float(passes[which].mean()) for which in (trial.real, ~trial.real & ~trial.mixed))
    kept = stays[trial.clicked]
    counts = stays[trial.real & passes].sum(axis=1)
    return (
        real / max(real + made, 1e-9),
        real,
        float(kept.mean()) if len(kept) else 0.0,
        float(np.median(counts)) if len(counts) else 0.0,
    )


def describe_cutoff(cutoff: Cutoff | None) -> str:
    """One line for people: adaptive's figures, or why there are none."""
    if cutoff is None:
        return "none"
    if (fit := cutoff.modes.get(Mode.ADAPTIVE)) is None:
        return f"none: {cutoff.refused.get(Mode.ADAPTIVE, '')}"
    return (
        f"precision {fit.precision:.3f}, recall {fit.recall:.3f} of queries, {fit.kept:.3f} of clicked hits kept, "
        f"{fit.hits:g} hits in the median (adaptive, {cutoff.queries:,} validation queries, halves in turn)"
    )
