"""Which of two models does better in a shop: `smar compare` reads what shoppers did (docs/serving.md).

*Split*: each session saw one index. Per action, the mean number of items a session of two indexes: Welch's interval of
their difference, and Fieller's of the lift, a ratio of means. The delta method, an approximation of it, finds an effect
where one session in hundreds clicks hundreds of times. *Interleaved*: each session saw the items of both. A session is
won by the team whose items have more of its clicks; a sign test leaves ties out (Radlinski, Kurup and Joachims, CIKM
2008).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import duckdb
from scipy import stats

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.data.event_tables import open_events
from smar.evaluation.bootstrap import Interval
from smar.evaluation.event_counts import ACTIONS, Units, read_split, read_teams
from smar.evaluation.metrics import Floats
from smar.evaluation.significance import holm

Design = Literal["split", "interleaved"]
LEVEL, POWER = 0.95, 0.8
_Z = float(stats.norm.ppf((1 + LEVEL) / 2))
_BOTH = _Z + float(stats.norm.ppf(POWER))


@dataclass(frozen=True)
class Compared:
    """`second` against `first` by one action.

    Split: `values` are means a session, `figure` is the lift (0 for none), None where the first mean may be 0, and
    `difference` that of the means. Interleaved: `values` are sessions won, `figure` is the second one's share of
    them (0.5 for none). `needed` are further sessions until the asked effect would be seen with power 0.8, and
    `needed_seen` until the one that was measured would; None where nothing can be said. `p` is corrected by Holm.
    """

    action: str
    first: str
    second: str
    values: tuple[float, float]
    figure: Interval | None
    difference: Interval | None
    p: float
    needed: int | None
    needed_seen: int | None

    @property
    def winner(self) -> str | None:
        """The better one, None where the difference may be chance."""
        if not self.p < 1 - LEVEL or self.values[0] == self.values[1]:
            return None
        return self.second if self.values[1] > self.values[0] else self.first


@dataclass(frozen=True)
class Comparison:
    """What a folder of events says: `sessions` by variant (interleaved: of both), and `rows` by action and variant."""

    design: Design
    sessions: dict[str, int]
    rows: list[Compared]
    notes: list[str] = field(default_factory=list)


def compare(
    events: Sequence[StrPath], control: str | None = None, effect: float = 0.05, design: Design | None = None
) -> Comparison:
    """Compare the variants in folders of events; `control` is what the others are compared with.

        compare(["events"]).rows[0].winner

    Args:
        events: folders that `smar serve --events` filled.
        control: a variant, the first one by name where none is given.
        effect: the relative effect that `needed` is told for: a lift, or won sessions over lost ones.
        design: as the service was run; found out where it is None.

    Raises:
        InputError: there are no events, of fewer than two variants, or they do not show what is asked.
    """
    if not 0 < effect < 10:
        raise InputError(f"the effect is {effect:g}; give a share above 0, such as 0.05 for 5 %.")
    with duckdb.connect(":memory:") as con:
        open_events(con, events)
        split, teams = read_split(con), read_teams(con)
    variants = sorted(teams[ACTIONS[0]])
    if len(variants) < 2:
        seen = f"of {variants[0]} only" if variants else "of no variant"
        raise InputError(f"the events are {seen}; compare needs those of `smar serve --split` or `--interleave`.")
    first = variants[0] if control is None else control
    if first not in variants:
        raise InputError(f"there is no variant {first!r} in the events; there are {', '.join(variants)}.")
    design = design or _design(split)
    others = [name for name in variants if name != first]
    rows, sessions, notes = (
        _split(split, first, others, effect)
        if design == "split"
        else _teams(teams, first, others, effect, len(split.variants))
    )
    if missing := split.without_session:
        notes.append(
            f"{missing:,} of {len(split.variants):,} sessions are single searches whose session was not recorded: "
            "those of one shopper are alike, so the intervals are too narrow"
        )
    return Comparison(design, sessions, _corrected(rows), notes)


def _design(units: Units) -> Design:
    if not units.mixed_searches:
        if units.mixed.mean() > 0.5:
            raise InputError(
                "most sessions saw several variants, but no search did; say --design split or interleaved."
            )
        return "split"
    return "interleaved"


def _corrected(rows: list[Compared]) -> list[Compared]:
    """With p corrected over the variants that one action compares."""
    corrected = []
    for action in dict.fromkeys(row.action for row in rows):
        family = [row for row in rows if row.action == action]
        pairs = zip(family, holm([row.p for row in family]).tolist(), strict=True)
        corrected += [Compared(**{**vars(row), "p": p}) for row, p in pairs]
    return corrected


def _split(
    units: Units, first: str, others: Sequence[str], effect: float
) -> tuple[list[Compared], dict[str, int], list[str]]:
    if not units.impressions:
        raise InputError("the events hold no impression, so sessions without a click are not seen; report impressions.")
    pure = ~units.mixed
    of = {name: (units.variants == name) & pure for name in (first, *others)}
    sessions = {name: int(mask.sum()) for name, mask in of.items()}
    if few := [name for name, number in sessions.items() if number < 2]:
        raise InputError(f"{few[0]} has {sessions[few[0]]} sessions of its own; at least 2 are needed.")
    rows = [
        _lift(action, (first, name), (values[of[first]], values[of[name]]), effect)
        for action, values in units.counts.items()
        if values.any()
        for name in others
    ]
    left = int(units.mixed.sum())
    notes = [f"{left:,} sessions that saw several variants are left out"] if left else []
    return rows, sessions, notes


def _lift(action: str, names: tuple[str, str], values: tuple[Floats, Floats], effect: float) -> Compared:
    means = (float(values[0].mean()), float(values[1].mean()))
    variances = [float(one.var(ddof=1)) for one in values]
    errors = [variance / len(one) for variance, one in zip(variances, values, strict=True)]
    difference, p, figure = Interval(0.0, 0.0, 0.0), 1.0, None
    if sum(errors) > 0:
        test = stats.ttest_ind(values[1], values[0], equal_var=False)
        p, (low, high) = float(test.pvalue), test.confidence_interval(LEVEL)
        difference = Interval(means[1] - means[0], float(low), float(high))
        figure = _fieller(means, errors, float(stats.t.ppf((1 + LEVEL) / 2, test.df)))
    have = len(values[0]) + len(values[1])
    noise = have * sum(errors)  # the difference's variance, times the sessions, at these shares
    needed = [_further(noise / delta**2 if delta else None, have) for delta in (effect * means[0], means[1] - means[0])]
    return Compared(action, *names, means, figure, difference, p, *needed)


def _fieller(means: tuple[float, float], errors: Sequence[float], t: float) -> Interval | None:
    """Lift of the second mean over the first; the interval holds 0 just when the test finds no difference.

    None where the first mean may be 0, so that the ratio may be anything.
    """
    divisor = means[0] ** 2 - t**2 * errors[0]
    if divisor <= 0:
        return None
    product = means[0] * means[1]
    root = math.sqrt(product**2 - divisor * (means[1] ** 2 - t**2 * errors[1]))
    return Interval(means[1] / means[0] - 1, max((product - root) / divisor - 1, -1.0), (product + root) / divisor - 1)


def _teams(
    teams: dict[str, dict[str, Floats]], first: str, others: Sequence[str], effect: float, sessions: int
) -> tuple[list[Compared], dict[str, int], list[str]]:
    if len(others) > 1:
        raise InputError(f"interleaved are two rankings; the events are of {', '.join([first, *others])}.")
    rows, (second,) = [], others
    for action in ACTIONS:
        ahead = teams[action][second] - teams[action][first]
        if not len(ahead):
            continue
        won, lost = int((ahead > 0).sum()), int((ahead < 0).sum())
        figure, p = None, 1.0
        if won + lost:
            test = stats.binomtest(won, won + lost)
            low, high = test.proportion_ci(LEVEL, "wilson")
            figure, p = Interval(won / (won + lost), float(low), float(high)), float(test.pvalue)
        decided = (won + lost) / sessions
        shares = ((1 + effect) / (2 + effect), None if figure is None else figure.value)
        needed = [_further(_decided(share) / decided if decided and share else None, sessions) for share in shares]
        rows.append(Compared(action, first, second, (float(lost), float(won)), figure, None, p, *needed))
    return rows, {f"{first} and {second}": sessions}, []


def _decided(share: float) -> float:
    """Won and lost sessions, over the square of both quantiles, that show a share of wins; infinite for one half."""
    if share == 0.5:
        return math.inf
    spread = (_Z * 0.5 + (_BOTH - _Z) * math.sqrt(share * (1 - share))) / _BOTH
    return (spread / (share - 0.5)) ** 2


def _further(sessions: float | None, have: int) -> int | None:
    """Sessions beyond those that there are, of `sessions` over the square of both quantiles."""
    if sessions is None or not math.isfinite(sessions):
        return None
    return max(math.ceil(sessions * _BOTH**2) - have, 0)


def comparison_rows(done: Comparison, effect: float) -> list[tuple[str, object]]:
    """What is printed of a comparison."""
    rows: list[tuple[str, object]] = [(f"sessions of {name}", number) for name, number in done.sessions.items()]
    for row in done.rows:
        measured = _lift_told(row) if done.design == "split" else _wins_told(row)
        verdict = "no winner yet" if row.winner is None else f"{row.winner} wins"
        rows.append((row.action, f"{measured}, p {row.p:.2g}: {verdict}"))
        needs = ((f"an effect of {effect:.2%}", row.needed), ("the one that was seen", row.needed_seen))
        told = "; ".join(f"{'unknown' if more is None else f'{more:,}'} for {what}" for what, more in needs)
        rows.append(("  sessions needed", f"{told} (power {POWER:g})"))
    return rows + [("note", note) for note in done.notes]


def _lift_told(row: Compared) -> str:
    means = f"{row.second} {row.values[1]:.4g} a session, {row.first} {row.values[0]:.4g}"
    if row.figure is None and row.difference is not None:
        return f"{means}: {row.difference.value:+.2g} (95 %: {row.difference.low:+.2g} to {row.difference.high:+.2g})"
    assert row.figure is not None
    return f"{means}: {row.figure.value:+.2%} (95 %: {row.figure.low:+.2%} to {row.figure.high:+.2%})"


def _wins_told(row: Compared) -> str:
    won = f"{row.second} won {row.values[1]:,.0f} sessions, {row.first} {row.values[0]:,.0f}"
    if row.figure is None:
        return won
    return f"{won}: {row.figure.value:.1%} (95 %: {row.figure.low:.1%} to {row.figure.high:.1%})"
