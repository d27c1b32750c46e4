"""The whole line on a tiny generated shop, driven as a user drives it: by the words of the command line."""

import contextlib
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from smar.cli import main
from smar.demo.shop import generate_shop

TOWER = {"layers": 1, "hidden": 32, "heads": 2}
STAGE = {"batch_size": 64, "learning_rate": 0.003}
CONFIG = {
    "data": {"image_size": 32, "slice_columns": ["group"], "note": "generated shop, simulated log", "workers": 1},
    "model": {
        "dim": 32,
        "vocabulary": 800,
        "query": TOWER,
        "text": TOWER,
        "vision": {**TOWER, "patch": 16},
    },
    "train": {
        "stage1": {"steps": 8, **STAGE},
        "stage2": {"steps": 4, **STAGE},
        "threads": 1,
        "bf16": False,
        "save_steps": 2,
        "evaluate_steps": 3,
    },
    "evaluate": {"bootstrap": 100, "slice_queries": 5},
}
"""Towers so small that a step takes some hundredths of a second; one thread, so that sums repeat bit for bit.
No bfloat16, which takes ten times as long on a processor without instructions for it; the demo is walked with it."""


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str

    def says(self, *parts: str) -> bool:
        """Whether the messages hold all the parts, wherever the terminal breaks its lines."""
        return all("".join(part.split()) in "".join(self.err.split()) for part in parts)


def smar(*words: object) -> Outcome:
    """Run one command in this process, `smar` itself left out; argparse's exit counts as the exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return Outcome(code, out.getvalue(), err.getvalue())


def found(run: Path, dataset: Path, folder: Path, query: str) -> list[object]:
    """Three hits of a query, from a finished run through embeddings and index, which lie in `folder`."""
    for words in (
        ("embed", run, dataset, "--out", folder / "embeddings"),
        ("index", folder / "embeddings", "--out", folder / "index"),
        ("search", folder / "index", query, "-k", "3", "--json"),
    ):
        done = smar(*words)
        assert done.code == 0, done.err
    hits: list[object] = json.loads(done.out)["hits"]
    return hits


@dataclass(frozen=True)
class Line:
    """Folders of one run through the line, and what each command said."""

    root: Path
    said: Mapping[str, Outcome]

    def __getattr__(self, name: str) -> Path:
        """Folder or file of a stage: `shop`, `dataset`, `run`, `report`, `embeddings`, `index`."""
        if name not in ("shop", "dataset", "run", "report", "embeddings", "index"):
            raise AttributeError(name)
        return self.root / name

    @property
    def config(self) -> Path:
        return self.root / "tiny.yaml"

    def copy(self, stage: str, target: Path) -> Path:
        """A copy of a stage's folder that a test may damage."""
        return Path(shutil.copytree(self.root / stage, target / stage))


def prepare_shop(root: Path, items: int = 300, searches: int = 3000, seed: int = 0, image_size: int = 32) -> Outcome:
    """Generate a shop under `root`, write the configuration beside it, prepare the dataset."""
    generate_shop(root / "shop", items, searches, seed)
    data = {**CONFIG["data"], "image_size": image_size}
    (root / "tiny.yaml").write_text(yaml.safe_dump({**CONFIG, "data": data}))
    return smar(*prepare_words(root), "--out", root / "dataset")


def prepare_words(root: Path) -> list[object]:
    """The `prepare` command of a shop, without `--out`."""
    shop = root / "shop"
    tables = [("items", "items.parquet"), ("clicks", "clicks.parquet"), ("queries", "queries.parquet")]
    words = [word for name, file in tables for word in (f"--{name}", shop / file)]
    return ["prepare", *words, "--config", root / "tiny.yaml"]


def walk(root: Path) -> Line:
    """Every stage from the shop to the index; each must end well. A folder that has them already is taken as it is."""
    record = root / "said.json"
    if record.is_file():
        return Line(root, {name: Outcome(**said) for name, said in json.loads(record.read_text()).items()})
    root.mkdir()
    said = {"prepare": prepare_shop(root)}
    for name, words in {
        "train": ("train", root / "dataset", "--out", root / "run", "--config", root / "tiny.yaml"),
        "evaluate": ("evaluate", root / "run", root / "dataset", "--out", root / "report"),
        "embed": ("embed", root / "run", root / "dataset", "--out", root / "embeddings"),
        "index": ("index", root / "embeddings", "--out", root / "index"),
    }.items():
        assert said[list(said)[-1]].code == 0, said[list(said)[-1]].err
        said[name] = smar(*words)
    record.write_text(json.dumps({name: asdict(outcome) for name, outcome in said.items()}))
    return Line(root, said)
