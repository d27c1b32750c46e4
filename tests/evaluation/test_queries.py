"""`smar queries`: events whose figures are known, through the command, beside a real index."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from smar.core.errors import InputError
from smar.data.journals import new_journal, seal
from smar.evaluation.queries import exchanged, find_queries
from smar.search.local.build import build_index
from tiny_index import write_embeddings
from tiny_line import Outcome, smar

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)


class Crowd:
    """Writes the lines of a journal."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.number = 0

    def search(
        self,
        query: str,
        ago: timedelta,
        clicked: int | None = None,
        shown: int = 3,
        session: str | None = None,
        **more: Any,
    ) -> None:
        """A search that shows items 1, 2, ... and of which one place is clicked."""
        self.number += 1
        query_id = f"q{self.number}"
        moment = int((NOW - ago).timestamp() * 1e6)
        asked = {
            "query": query,
            "offset": 0,
            "hits": shown,
            "total": shown,
            "routed": "red" in query,
            "session_id": session,
        }
        self._write("query", query_id, moment, **{**asked, **more})
        for place in range(1, shown + 1):
            self._write("impression", query_id, moment, object_id=f"item/{place:05d}", position=place)
        if clicked is not None:
            self._write("click", query_id, moment + 1, object_id=f"item/{clicked:05d}")

    def _write(self, action: str, query_id: str, moment: int, **more: Any) -> None:
        told = {"timestamp": moment, "action_name": action, "query_id": query_id, **more}
        self.lines.append(json.dumps(told).encode() + b"\n")

    def seal(self, folder: Path) -> Path:
        folder.mkdir()
        path = new_journal(folder)
        path.write_bytes(b"".join(self.lines))
        seal(path)
        return folder


def days(number: float) -> timedelta:
    return timedelta(days=number)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fortnight and more: each query tells one story."""
    crowd, second = Crowd(), timedelta(seconds=1)
    for at in range(10):
        crowd.search("shirt", days(at), clicked=1)
        crowd.search("red watch", days(at), clicked=3)
        crowd.search("unicorn", days(0.6 * at), shown=0, session=f"u{at}")
        crowd.search("kettle <b>", days(at), session=f"k{at}")
        start = days(8) + 600 * second * at
        crowd.search("red sofa", start, session=f"s{at}")
        crowd.search("red couch", start - 60 * second, session=f"s{at}", clicked=1 if at else None)
        crowd.search("red c", start + 40 * second, session=f"s{at}")  # typing on
        crowd.search("red cup", start + 39 * second, session=f"s{at}", clicked=2)
        crowd.search("blue", days(20), session=f"b{at}")
        crowd.search("blue", days(20) - 30 * second, session=f"b{at}", offset=48)
    crowd.search("rare", days(1), shown=0)
    crowd.search("", days(1))
    return crowd.seal(tmp_path_factory.mktemp("crowd") / "events")


@pytest.fixture(scope="module")
def report(events: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    root = tmp_path_factory.mktemp("report")
    build_index(write_embeddings(root / "embeddings", items=60), root / "index")
    done = smar("queries", events, "--index", root / "index", "--out", root / "report")
    assert done.code == 0, done.err
    return root / "report", done


def section(text: str, name: str) -> str:
    return text.split(f"## {name}\n")[1].split("\n## ")[0]


def test_counts(report: tuple[Path, Outcome]) -> None:
    told = json.loads((report[0] / "metrics.json").read_text())
    assert told["total"] == {"searches": 81, "empty": 11, "seen": 70, "clicked": 39, "abandoned": 11,
                             "reformulated": 10, "routed": 40}  # fmt: skip
    assert told["lists"] == {"Without hits": 1, "Never clicked": 3, "Abandoned after page one": 2, "Reformulated": 1,
                             "Weak by nDCG of clicks": 4}  # fmt: skip
    rows = {row["query"]: row for row in pq.read_table(report[0] / "queries.parquet").to_pylist()}
    assert set(rows) == {
        "shirt",
        "red watch",
        "unicorn",
        "kettle <b>",
        "red sofa",
        "red couch",
        "red cup",
        "blue",
        "rare",
    }
    assert rows["shirt"]["ndcg"] == 1
    assert rows["red watch"]["ndcg"] == pytest.approx(0.5)
    assert rows["unicorn"]["ndcg"] is None
    assert (rows["shirt"]["this_week"], rows["shirt"]["week_before"]) == (7, 3)
    assert (rows["blue"]["abandoned"], rows["red sofa"]["reformulated"], rows["red couch"]["abandoned"]) == (0, 10, 1)


def test_the_page_says_what_is_wrong_and_shows_what_was_shown(report: tuple[Path, Outcome]) -> None:
    folder, done = report
    text = (folder / "report.md").read_text()
    assert "| unicorn | 10 | 0 | 0 | 10 |" in section(text, "Without hits")
    assert "rare" not in section(text, "Without hits"), "searched for less than five times"
    assert r"kettle \<b>" in section(text, "Never clicked")
    assert "| sofa | couch | 10 | 9 |" in section(text, "Words that were replaced")
    weak = section(text, "Weak by nDCG of clicks")
    assert weak.index("red watch") < weak.index("shirt")
    assert "| unicorn | 10 | 0 | +10 |" in section(text, "Trends")
    pictures = sorted(folder.glob("pictures/*.jpg"))
    assert len(pictures) == 3
    assert all(f"pictures/{file.name}" in text for file in pictures)
    assert Image.open(pictures[0]).size == (84, 112)
    assert done.says("without hits 1", "proposed synonyms 1")
    assert [row["by"] for row in pq.read_table(folder / "replaced.parquet").to_pylist()] == ["couch"]


def test_without_sessions_the_page_says_what_is_not_known(tmp_path: Path) -> None:
    crowd = Crowd()
    crowd.search("shirt", days(0))
    found = find_queries([crowd.seal(tmp_path / "events")])
    assert (found.sessions, found.total.abandoned, found.before.searches, found.replaced) == (False, 1, 0, [])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder, "holds no events-*.parquet"),
        (lambda folder: _browsing(folder / "events"), "no event tells what was searched for"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(InputError) as caught:
        find_queries([make(tmp_path)])
    assert said in str(caught.value)


def _browsing(folder: Path) -> Path:
    crowd = Crowd()
    crowd.search("", days(0))
    return crowd.seal(folder)


def test_only_one_word_for_one_is_a_replacement() -> None:
    assert list(exchanged("red sofa big", "big couch red")) == [("sofa", "couch")]
    assert not [*exchanged("red sofa", "red"), *exchanged("red sofa", "red sofa bed"), *exchanged("sofa", "sofas")]
