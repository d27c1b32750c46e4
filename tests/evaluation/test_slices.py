"""Slices on a small dataset folder whose every slice is known by hand, and on the generated shop."""

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smar.core.errors import InputError
from smar.core.files import FileEntry
from smar.core.sections.data import DataSettings
from smar.core.sections.evaluation import EvaluateSettings
from smar.data.dataset import Dataset, DatasetManifest
from smar.data.prepare import prepare
from smar.demo.shop import generate_shop
from smar.evaluation.measure import measure
from smar.evaluation.metrics import Relevance, read_judgements
from smar.evaluation.slices import Slices, build_slices, majority, needs_image

QUERIES = ["red dress", "kettle", "blue dress"]
# (query, item row): 0-2 are dresses, 3-4 kettles
ENTRIES = [(0, 0), (0, 1), (0, 3), (1, 3), (1, 4), (2, 2)]
RELEVANCE = Relevance.from_pairs(*zip(*ENTRIES, strict=True), [1] * 6, queries=3)
SMALL = EvaluateSettings(slice_queries=1)


def dataset(folder: Path, queries: dict[str, list[object]] | None = None, **columns: list[object]) -> Dataset:
    """A dataset folder with what slices read; `columns` replace or add item columns."""
    items = {
        "item_id": list("abcde"),
        "title": ["Red dress", "Summer dress", "Blue frock", "Kettle", "Steel kettle, 1.7 l"],
        "category": ["Dress", "Dress", "Dress", "Kettle", "Kettle"],
        "clicked_in_train": [True, False, True, True, False],
    }
    train = {"query": ["red dress", "old query", "kettle"], "item_index": pa.array([0, 3, 3], pa.int32())}
    tables = {"items.parquet": {**items, **columns}, "pairs/train.parquet": train}
    if queries is not None:
        tables["queries.parquet"] = queries
    (folder / "pairs").mkdir()
    for name, content in tables.items():
        pq.write_table(pa.table(content), folder / name)
    DatasetManifest(
        counts={},
        image_status={},
        settings=DataSettings(text_fields=("title", "category"), language=None).model_dump(mode="json"),
        test_from=datetime(2026, 9, 24),
        valid_from=None,
        image_size=64,
        files={name: FileEntry(size=(folder / name).stat().st_size, sha256="") for name in tables},
    ).write(folder)
    return Dataset.open(folder)


def entries(slices: Slices) -> dict[str, list[tuple[int, int]]]:
    return {s.name: [pair for pair, inside in zip(ENTRIES, s.entries, strict=True) if inside] for s in slices.kept}


def test_every_slice_by_hand(tmp_path: Path) -> None:
    table = {"query": ["kettle", "red dress"], "needs_image": [0.0, 0.5], "group": ["Not-fashion", "Fashion"]}
    got = entries(build_slices(dataset(tmp_path, table), QUERIES, RELEVANCE, SMALL))
    red, kettle, blue = ENTRIES[:3], ENTRIES[3:5], ENTRIES[5:]
    assert got == {
        "all": ENTRIES,
        "needs_image": red,  # at the threshold counts; "blue dress" is not in the table, so in neither
        "words_suffice": kettle,
        "group=Fashion": red,
        "group=Not-fashion": kettle,
        "unseen_queries": blue,
        "cold_items": [(0, 1), (1, 4)],
        "new_pairs": [(0, 1), (0, 3), (1, 4), (2, 2)],
        "title_words=all": [(0, 0), *kettle],
        "title_words=some": [(0, 1), *blue],
        "title_words=none": [(0, 3)],
        "query_words=1": kettle,
        "query_words=2": red + blue,
        "category=Dress": red + blue,  # two of the three items of "red dress" are dresses
        "category=Kettle": kettle,
    }


def test_without_a_queries_table_there_is_no_truth(tmp_path: Path) -> None:
    names = list(entries(build_slices(dataset(tmp_path), QUERIES, RELEVANCE, SMALL)))
    assert names[:4] == ["all", "unseen_queries", "cold_items", "new_pairs"]
    assert names[-2:] == ["category=Dress", "category=Kettle"]


def test_a_group_column_of_the_items_serves_where_queries_have_none(tmp_path: Path) -> None:
    group = ["Fashion"] * 3 + ["Not-fashion", None]
    got = entries(build_slices(dataset(tmp_path, group=group), QUERIES, RELEVANCE, SMALL))
    assert got["group=Fashion"] == ENTRIES[:3] + ENTRIES[5:]
    assert got["group=Not-fashion"] == ENTRIES[3:5]


@pytest.mark.parametrize(
    ("dress", "kettle", "names"),
    [(7, 12, ("7", "12")), (True, False, ("true", "false")), (0.5, 2.0, ("0.5", "2")),
     (Decimal("1.50"), Decimal("2.00"), ("1.50", "2.00")),
     (date(2026, 1, 2), date(2026, 1, 3), ("2026-01-02", "2026-01-03")),
     (["Dress", "Red"], ["Kettle"], ("Dress Red", "Kettle"))],
)  # fmt: skip
def test_categories_of_every_type(tmp_path: Path, dress: Any, kettle: Any, names: tuple[str, str]) -> None:
    got = entries(build_slices(dataset(tmp_path, category=[dress] * 3 + [kettle, None]), QUERIES, RELEVANCE, SMALL))
    assert got[f"category={names[0]}"] == ENTRIES[:3] + ENTRIES[5:]
    assert got[f"category={names[1]}"] == ENTRIES[3:5]
    assert len([name for name in got if name.startswith("category=")]) == 2


def test_a_group_column_that_is_a_key_makes_no_slices(tmp_path: Path) -> None:
    many = Relevance.from_pairs(range(30), range(30), [1] * 30, queries=30)
    items = {"item_id": list(range(30)), "category": ["Dress"] * 30, "clicked_in_train": [True] * 30}
    items["title"] = ["Dress"] * 30
    data = dataset(tmp_path, **items, group=[f"g{i}" for i in range(30)])
    names = [s.name for s in build_slices(data, [str(i) for i in range(30)], many, SMALL).kept]
    assert not any(name.startswith("group=") for name in names)


def test_a_word_that_no_item_holds_makes_a_slice(tmp_path: Path) -> None:
    data, queries = dataset(tmp_path), ["red dress", "ketle", "blue dress"]
    got = entries(build_slices(data, queries, RELEVANCE, SMALL))
    assert got["unknown_words"] == ENTRIES[3:5]


def test_small_slices_are_left_out_and_listed_but_all_stays(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    got = build_slices(data, QUERIES, RELEVANCE, EvaluateSettings(slice_queries=3))
    assert [s.name for s in got.kept] == ["all", "new_pairs"]
    assert got.left_out == [
        ("unseen_queries", 1),
        ("cold_items", 2),
        ("title_words=all", 2),
        ("title_words=some", 2),
        ("title_words=none", 1),
        ("query_words=1", 1),
        ("query_words=2", 2),
        ("category=Dress", 2),
        ("category=Kettle", 1),
    ]
    assert [s.name for s in build_slices(data, QUERIES, RELEVANCE, EvaluateSettings()).kept] == ["all"]


def test_needs_image_that_is_no_number_is_refused() -> None:
    table = pa.table({"query": ["a"], "needs_image": ["yes"]})
    with pytest.raises(InputError, match="numbers from 0 to 1"):
        needs_image(table, ["a"])
    assert needs_image(pa.table({"query": ["a"]}), ["a"]) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), max_size=40))
@settings(max_examples=100, deadline=None)
def test_majority_equals_its_slow_twin(rows: list[tuple[int, int]]) -> None:
    query, code = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    want = []
    for number in range(5):
        own = [c for q, c in rows if q == number and c >= 0]
        want.append(min(own, key=lambda c: (-own.count(c), c)) if own else -1)
    assert majority(query, code, 5).tolist() == want


def test_every_slice_of_the_generated_shop_is_populated(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    generate_shop(shop, items=320, searches=4000)
    tables = [[str(shop / f"{name}.parquet")] for name in ("items", "clicks", "queries")]
    options = DataSettings(images_root=shop, image_size=16, workers=1)
    prepare(options, tables[0], tables[1], [], tables[2], None, tmp_path / "data")
    data = Dataset.open(tmp_path / "data")
    judged = read_judgements(data.qrels(), data.items["item_id"])
    slices = build_slices(data, judged.queries, judged.relevance, EvaluateSettings(slice_queries=10))
    names = [s.name for s in slices.kept]
    known = [
        "needs_image",
        "words_suffice",
        "group=Fashion",
        "group=Not-fashion",
        "unseen_queries",
        "cold_items",
    ]
    assert names[:8] == ["all", *known, "new_pairs"]
    perfect = np.full((len(judged.queries), 60), -1)
    for row, (start, end) in enumerate(zip(judged.relevance.offsets, judged.relevance.offsets[1:], strict=False)):
        perfect[row, : end - start] = judged.relevance.items[start:end]
    rows = measure({"smar": perfect}, judged.relevance, slices.kept, EvaluateSettings(bootstrap=100)).rows
    assert {row.slice for row in rows} == {*names}
    assert all(row.value == row.low == row.high == 1 for row in rows if row.metric == "R@50")
