"""The line from `prepare` to `search` on shops in five languages, in every mode."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from smar.search.protocol import Mode
from smar.serving.engine import Engine
from tiny_line import STAGE, TOWER, smar
from world_shops import ITEMS, SHOPS, write_shop


@dataclass(frozen=True)
class Line:
    """A shop's folders, and the engine of its index."""

    name: str
    root: Path
    engine: Engine

    def asked(self) -> dict[str, set[str]]:
        """Queries of the test part, and the items that were clicked for each."""
        table = pq.read_table(self.root / "dataset" / "qrels.parquet")
        asked: dict[str, set[str]] = {}
        for query, item in zip(table["query"].to_pylist(), table["item_id"].to_pylist(), strict=True):
            asked.setdefault(query, set()).add(item)
        return asked


def config(name: str) -> dict[str, object]:
    data = {"image_size": 32, "workers": 1, "test_share": 0.4, "slice_columns": [], "text_fields": ["title"]}
    stages = {"stage1": {"steps": 2, **STAGE}, "stage2": {"steps": 1, **STAGE}, "baselines": [], "threads": 1}
    return {
        "data": data | {"language": SHOPS[name].language},
        "model": {"dim": 32, "vocabulary": 800, "query": TOWER, "text": TOWER, "vision": {**TOWER, "patch": 16}},
        "train": stages | {"evaluate_steps": 0},
        "evaluate": {"k": 10, "bootstrap": 100, "controls": False},
    }


@pytest.fixture(scope="module", params=SHOPS)
def line(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Line:
    root = tmp_path_factory.mktemp(request.param)
    write_shop(SHOPS[request.param], root)
    (root / "tiny.yaml").write_text(yaml.safe_dump(config(request.param)))
    settings = ("--config", root / "tiny.yaml")
    tables = ("--items", root / "items.jsonl", "--clicks", root / "clicks.jsonl")
    for command in (
        ("prepare", *tables, *settings, "--out", root / "dataset"),
        ("train", root / "dataset", *settings, "--out", root / "run"),
        ("evaluate", root / "run", root / "dataset", "--out", root / "report"),
        ("embed", root / "run", root / "dataset", "--out", root / "embeddings"),
        ("index", root / "embeddings", "--out", root / "index"),
    ):
        said = smar(*command)
        assert said.code == 0, said.err
    return Line(request.param, root, Engine.open(root / "index"))


def test_bm25_finds_what_was_asked_for(line: Line) -> None:
    rows = json.loads((line.root / "report" / "metrics.json").read_text(encoding="utf-8"))

    (recall,) = (r["value"] for r in rows if (r["model"], r["slice"], r["metric"]) == ("bm25", "all", "R@10"))
    assert recall >= 0.95


@pytest.mark.parametrize("mode", list(Mode))
def test_every_mode_answers(line: Line, mode: Mode) -> None:
    for query in list(line.asked())[:10]:
        found = line.engine.search(query, k=ITEMS, mode=mode).found
        assert len(found) == ITEMS
        assert np.isfinite(found.score).all()


def test_hybrid_search_has_the_words(line: Line) -> None:
    asked = line.asked()
    assert len(asked) >= 20
    words = []
    for query, clicked in asked.items():
        hits = line.engine.search(query, k=ITEMS, mode=Mode.HYBRID).hits
        by_words = sorted(hits, key=lambda hit: -(hit.words_score or 0))[:10]
        words.append(len(clicked & {hit.item_id for hit in by_words}) / len(clicked))
    assert np.mean(words) >= 0.95
    fused = [
        clicked & {hit.item_id for hit in line.engine.search(query, 50, Mode.HYBRID).hits}
        for query, clicked in asked.items()
    ]
    assert np.mean([len(hit) / len(clicked) for hit, clicked in zip(fused, asked.values(), strict=True)]) >= 0.9


def test_the_search_command_answers(line: Line) -> None:
    query = next(iter(line.asked()))
    assert smar("search", line.root / "index", query, "--mode", "hybrid").code == 0


def test_a_brand_is_one_value_however_its_accents_are_stored(line: Line) -> None:
    if line.name != "german":
        pytest.skip("brands with accents are in the German shop")
    brands = pq.read_table(line.root / "dataset" / "items.parquet")["brand"].to_pylist()
    both = sum(brand in ("Müller", "Mu\u0308ller") for brand in brands)
    assert 0 < sum(brand == "Mu\u0308ller" for brand in brands) < both
    counts = line.engine.facets(None, 50).values["brand"]
    assert counts["Müller"][0] == both
    assert "Mu\u0308ller" not in counts
    for spelling in ("Müller", "Mu\u0308ller"):
        for text in (f'brand = "{spelling}"', f'brand in ("x", "{spelling}")', f'not brand != "{spelling}"'):
            assert len(line.engine.search("Hose", k=ITEMS, filter=text).found) == both
