"""The examples run on what their docstrings say they read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient

from tiny_line import Line

EXAMPLES = Path(__file__).parents[1] / "examples"
REAL = EXAMPLES.parents[1] / "shared" / "data" / "myntra"


def fashion_truth(folder: Path, out: Path) -> list[dict[str, object]]:
    command = [sys.executable, EXAMPLES / "fashion_truth.py", folder, out]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return list(pq.read_table(out).to_pylist())


def test_hidden_is_a_colour_asked_and_not_named(tmp_path: Path) -> None:
    tables: dict[str, dict[str, object]] = {
        "items": {"item_id": ["1", "2", "3"], "title_colours_shown": [["red"], [], ["blue", "red"]]},
        "queries": {
            "query": ["red shoe", "shoe", "blue shoe"],
            "constraints": [json.dumps(x) for x in ({"colour": "red"}, {"type": "Shoe"}, {"colour": "blue"})],
        },
        "qrels": {
            "query": ["red shoe", "red shoe", "shoe", "blue shoe", "blue shoe"],
            "item_id": ["1", "2", "2", "1", "3"],
            "relevance": [2] * 5,
        },
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    rows = fashion_truth(tmp_path, tmp_path / "truth.parquet")
    hidden = {(row["query"], row["item_id"]): row["hidden"] for row in rows}
    assert hidden == {
        ("red shoe", "1"): False,
        ("red shoe", "2"): True,
        ("shoe", "2"): False,
        ("blue shoe", "1"): True,
        ("blue shoe", "3"): False,
    }


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real catalogue lies beside the development machine's checkout only")
def test_truth_of_the_real_catalogue(tmp_path: Path) -> None:
    rows = fashion_truth(REAL, tmp_path / "truth.parquet")
    assert len(rows) == pq.read_metadata(REAL / "qrels.parquet").num_rows
    assert 0 < sum(bool(row["hidden"]) for row in rows) < len(rows)


@pytest.mark.cluster  # a minute
def test_the_loop_goes_round(line: Line, tmp_path: Path) -> None:
    """From a finished line on: a service, a simulated crowd, a model of its events, the swap."""
    for name in ("shop", "dataset", "run", "embeddings", "index"):
        line.copy(name, tmp_path)
    words = ["--out", tmp_path, "--searches", "400", "--config", line.config]
    done = subprocess.run(
        [sys.executable, EXAMPLES / "loop.py", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "index" / "v0002").is_dir()
    manifest = json.loads((tmp_path / "dataset-events" / "manifest.json").read_text())
    assert manifest["counts"]["clicks"] > 100
    before, after = (float(word) for word in done.stdout.splitlines()[-2].split()[-2:])
    assert before > 0
    assert after > 0
    assert "# Queries" in (tmp_path / "report-queries" / "report.md").read_text()


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of its own; it is committed without outputs."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = [output for cell in cells for output in cell.outputs if output.output_type == "execute_result"]
    assert len(results) == len(cells)  # each cell ends with what it shows
    assert "red" in results[-1].data["text/plain"].lower()
