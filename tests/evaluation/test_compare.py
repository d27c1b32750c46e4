"""`smar compare`: who wins, how sure that is, and how many sessions are still needed."""

import json
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from smar.cli import main
from smar.core.errors import InputError
from smar.evaluation.compare import Compared, Comparison, _lift, _teams, compare

LAYOUT = pa.schema(
    {
        "timestamp": pa.timestamp("us", "UTC"),
        "action_name": pa.string(),
        "query_id": pa.string(),
        "session_id": pa.string(),
        "object_id": pa.string(),
        "position": pa.int32(),
        "query": pa.string(),
        "variant": pa.string(),
    }
)


def event(action: str, session: str | None, variant: str | None, query_id: str | None = None, item: str = "1") -> dict:
    told = {"timestamp": 1_789_000_000_000_000, "position": 1, "query": "red dress", "object_id": item}
    return told | {
        "action_name": action,
        "session_id": session,
        "variant": variant,
        "query_id": query_id or f"of-{session or uuid.uuid4()}",
    }


def written(folder: Path, events: list[dict], parts: int = 2) -> Path:
    folder.mkdir()
    for at in range(parts):
        pq.write_table(pa.Table.from_pylist(events[at::parts], LAYOUT), folder / f"events-{at}.parquet")
    return folder


def clicks_on(session: str, variant: str, items: int) -> list[dict]:
    return [event("click", session, variant, item=str(item)) for item in range(items)]


def split_events(sessions: int, rates: dict[str, float], seed: int = 0) -> list[dict]:
    """Sessions that see one index each, and click Poisson(rate) times, ordering after one click in four."""
    rng, events = np.random.default_rng(seed), list[dict]()
    for at in range(sessions):
        name = list(rates)[at % len(rates)]
        clicks = int(rng.poisson(rates[name]))
        events.append(event("impression", f"s{at}", name))
        events += clicks_on(f"s{at}", name, clicks) + [event("order", f"s{at}", name)] * (clicks // 4)
    return events


def team_events(sessions: int, share: float, seed: int = 0) -> list[dict]:
    """Interleaved sessions that click one to three of ten items, of `b` with this probability."""
    rng, events = np.random.default_rng(seed), list[dict]()
    for at in range(sessions):
        events += [event("impression", f"s{at}", "ab"[item % 2], item=str(item)) for item in range(10)]
        for item in range(int(rng.integers(1, 4))):
            events.append(event("click", f"s{at}", "ab"[int(rng.random() < share)], item=str(item)))
    return events


def clicks_of(done: Comparison, second: str = "b") -> Compared:
    return next(row for row in done.rows if row.action == "click" and row.second == second)


def test_a_split_with_an_effect_has_a_winner(tmp_path: Path) -> None:
    done = compare([written(tmp_path / "events", split_events(4000, {"a": 0.5, "b": 0.65}))])
    row = clicks_of(done)
    assert (done.design, done.sessions, row.winner) == ("split", {"a": 2000, "b": 2000}, "b")
    assert row.figure is not None
    assert row.figure.low < 0.3 < row.figure.high
    assert row.values == pytest.approx((0.5, 0.65), abs=0.06)
    assert row.needed_seen == 0
    assert row.needed is not None
    assert row.needed > 10_000  # 5 % of half a click are seen late
    assert done.notes == []


def test_a_split_without_one_has_none(tmp_path: Path) -> None:
    row = clicks_of(compare([written(tmp_path / "events", split_events(2000, {"a": 0.5, "b": 0.5}))]))
    assert row.winner is None
    assert row.p > 0.05
    assert row.figure is not None
    assert row.figure.low < 0 < row.figure.high


def test_the_worse_one_is_no_winner(tmp_path: Path) -> None:
    folder = written(tmp_path / "events", split_events(4000, {"a": 0.5, "b": 0.65}))
    row = clicks_of(compare([folder], control="b"), "a")
    assert row.winner == "b"
    assert row.figure is not None
    assert row.figure.high < 0


def test_a_figure_computed_by_hand(tmp_path: Path) -> None:
    """Clicks a session 2, 1, 2, 3 against 3, 4, 2, 3: means 2 and 3, and Welch's t = sqrt(3)."""
    counts = {"a": (2, 1, 2, 3), "b": (3, 4, 2, 3)}
    events = [
        one
        for name, clicks in counts.items()
        for at, number in enumerate(clicks)
        for one in [event("impression", f"{name}{at}", name), *clicks_on(f"{name}{at}", name, number)]
    ]
    row = clicks_of(compare([written(tmp_path / "events", events)], effect=1.0))
    assert row.values == (2.0, 3.0)
    assert row.difference is not None
    assert (row.difference.value, row.p) == pytest.approx((1.0, 2 * stats.t.sf(np.sqrt(3), 6)))
    assert row.figure is not None
    # Fieller: (3 - 2 r)^2 = t^2 (1 + r^2) / 6
    for ratio in (1 + row.figure.low, 1 + row.figure.high):
        assert (3 - 2 * ratio) ** 2 == pytest.approx(stats.t.ppf(0.975, 6) ** 2 * (1 + ratio**2) / 6)
    # a mean twice as high, of 2: (1.96 + 0.84)^2 * (2 * 2/3 + 2 * 2/3) / 2^2 sessions, which is less than there are
    assert row.needed == 0
    assert clicks_of(compare([tmp_path / "events"], effect=0.5)).needed == int(np.ceil(7.848879 * 8 / 3)) - 8


def test_one_busy_session_makes_no_winner(tmp_path: Path) -> None:
    """As in the sample events of User Behavior Insights: 219 sessions, one of which clicks hundreds of times."""
    events = split_events(219, {"a": 0.5, "b": 0.5})
    events += [event("click", "s0", "a", f"q{at}", str(at)) for at in range(300)] + [event("click", "s2", "a")] * 500
    row = clicks_of(compare([written(tmp_path / "events", events)]))
    assert row.values[0] < 5  # a click that is told again counts once
    assert row.winner is None
    assert row.figure is None or row.figure.low < 0 < row.figure.high


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, lift, inside = np.random.default_rng(3), 0.2, 0
    for _ in range(400):
        drawn = (rng.poisson(0.5, 1000).astype(float), rng.poisson(0.5 * (1 + lift), 1000).astype(float))
        figure = _lift("click", ("a", "b"), drawn, lift).figure
        assert figure is not None
        inside += figure.low <= lift <= figure.high
    assert 0.92 * 400 < inside < 0.98 * 400


def test_sessions_needed_are_those_that_find_the_effect() -> None:
    rng, lift = np.random.default_rng(5), 0.2
    pilot = _lift("click", ("a", "b"), tuple(rng.poisson(0.5, 400).astype(float) for _ in range(2)), lift)
    assert pilot.needed is not None
    half = (pilot.needed + 800) // 2
    draws = ((rng.poisson(0.5, half), rng.poisson(0.5 * (1 + lift), half)) for _ in range(400))
    found = [_lift("click", ("a", "b"), (a.astype(float), b.astype(float)), lift).winner for a, b in draws]
    assert 0.7 < np.mean([name == "b" for name in found]) < 0.9


def test_interleaved_wins_and_the_sign_test(tmp_path: Path) -> None:
    done = compare([written(tmp_path / "events", team_events(600, 0.62))])
    row = clicks_of(done)
    lost, won = row.values
    assert (done.design, done.sessions, row.winner) == ("interleaved", {"a and b": 600}, "b")
    assert 0 < won + lost < 600  # two clicks may be one each
    assert row.p == pytest.approx(stats.binomtest(int(won), int(won + lost)).pvalue)
    assert row.figure is not None
    assert row.figure.low > 0.5
    assert clicks_of(compare([written(tmp_path / "even", team_events(600, 0.5, seed=1))])).winner is None


def test_interleaved_sessions_needed_are_those_that_find_the_effect() -> None:
    """Won sessions over lost ones 1.5: with the sessions asked for 8 of 10 experiments find it."""
    rng = np.random.default_rng(7)

    def teams(sessions: int, share: float) -> dict[str, dict[str, np.ndarray]]:
        ahead, tied = rng.random(sessions) < share, rng.random(sessions) < 0.2
        credit = {"a": (~ahead | tied).astype(float), "b": (ahead | tied).astype(float)}
        return dict.fromkeys(("click", "cart", "order"), credit)

    (pilot, *_), _, _ = _teams(teams(200, 0.6), "a", ["b"], 0.5, 200)
    assert pilot.needed is not None
    sessions = 200 + pilot.needed
    rows = [_teams(teams(sessions, 0.6), "a", ["b"], 0.5, sessions)[0][0] for _ in range(300)]
    assert 0.7 < np.mean([row.winner == "b" for row in rows]) < 0.9


def test_a_published_interleaving_experiment_is_read_as_published(tmp_path: Path) -> None:
    """One session: clicks on documents 1 and 2 of 1, 4, 2, 3, 5 are won by the first ranking (see test_split)."""
    teams = {"1": "a", "4": "b", "2": "a", "3": "b", "5": "b"}
    shown = [event("impression", "s", team, item=item) for item, team in teams.items()]
    for name, clicked, values in (
        ("first", ("1", "2"), (1, 0)),
        ("second", ("4", "3"), (0, 1)),
        ("tie", ("1", "4"), (0, 0)),
    ):
        events = shown + [event("click", "s", teams[item], item=item) for item in clicked]
        assert clicks_of(compare([written(tmp_path / name, events)])).values == values


def test_a_click_told_three_times_is_one_credit(tmp_path: Path) -> None:
    events = [event("click", "x", "a", item="1")] * 3 + [event("click", "x", "b", item=item) for item in "23"]
    assert clicks_of(compare([written(tmp_path / "events", events)])).values == (0, 1)


def test_sessions_that_saw_both_are_left_out_and_told(tmp_path: Path) -> None:
    events = split_events(200, {"a": 0.5, "b": 0.5})
    events += [event("impression", "both", name, f"q-{name}") for name in "ab"]
    done = compare([written(tmp_path / "events", events)])
    assert sum(done.sessions.values()) == 200
    assert done.notes == ["1 sessions that saw several variants are left out"]


def test_searches_without_a_session_are_told(tmp_path: Path) -> None:
    events = [event("impression", None, "ab"[at % 2], f"q{at}") for at in range(40)]
    events += [event("click", None, "ab"[at % 2], f"q{at}") for at in range(0, 40, 3)]
    (note,) = compare([written(tmp_path / "events", events)]).notes
    assert "40 of 40 sessions are single searches" in note


def test_three_variants_are_corrected_together(tmp_path: Path) -> None:
    done = compare([written(tmp_path / "events", split_events(3000, {"a": 0.5, "b": 0.5, "c": 0.7}))])
    rows = {row.second: row for row in done.rows if row.action == "click"}
    assert (rows["b"].winner, rows["c"].winner) == (None, "c")


@pytest.mark.parametrize(
    ("events", "given", "message"),
    [
        ([event("click", "s", None)], {}, "of no variant; compare needs those of"),
        ([event("click", "s", "a")], {}, "of a only"),
        ([event("click", "s", "a"), event("click", "t", "b")], {}, "hold no impression"),
        ([event("impression", "s", "a"), event("impression", "t", "b")], {}, "a has 1 sessions of its own"),
        (
            [event("click", "s", "a"), event("click", "t", "b")],
            {"control": "c"},
            "no variant 'c' in the events; there are a, b",
        ),
        ([event("click", "s", "a"), event("click", "t", "b")], {"effect": 0.0}, "give a share above 0"),
        ([event("click", "s", name, f"q{name}") for name in "ab"], {}, "say --design split or interleaved"),
        ([event("click", "s", name, "q") for name in "abc"], {}, "interleaved are two rankings"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path: Path, events: list[dict], given: dict, message: str) -> None:
    folder = written(tmp_path / "events", events, parts=1)
    with pytest.raises(InputError, match=message):
        compare([folder], **given)


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no events-\*.parquet"):
        compare([tmp_path])
    (tmp_path / "events-1.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="cannot be read"):
        compare([tmp_path])


def test_the_command_prints_a_verdict_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "events", split_events(4000, {"a": 0.5, "b": 0.65}))
    assert main(["compare", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "b wins" in shown
    assert "sessions needed" in shown
    assert main(["compare", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"][0]["winner"] == "b"
    assert told["sessions"] == {"a": 2000, "b": 2000}
