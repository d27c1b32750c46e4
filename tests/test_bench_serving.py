"""The serving benchmark runs from the generated words to the report on a small index, with a real service and wrk."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = ["--items", "2000", "--queries", "400", "--seconds", "1", "--concurrency", "2", "--workers", "1", "--no-peer"]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "serving.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | environment)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_report_of_a_small_index(tmp_path: Path) -> None:
    done = run(*SMALL, "--store", str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Failed requests: 0." in done.stdout
    assert "recall@50 through the service: 1.0000 of 500 queries." in done.stdout  # 2,000 items are searched exactly
    rows = {cells[1].strip(): cells[2:] for line in done.stdout.splitlines() if len(cells := line.split("|")) > 3}
    assert float(rows["smar"][0]) > 0
    for name in ("0.1 % of the items", "10 %, another filter each time", "the far half"):
        assert float(rows[name][5]) == 1, "recall under a filter"
        assert int(rows[name][6].replace(",", "")) > 0
    assert re.search(r"index alone, recall@50 \| 1\.00 \| .* \| aim \|", done.stdout)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--items", "10"], "allowed: 2000 or more"), (["--concurrency", "0"], "allowed: 1 or more each")],
)
def test_impossible_sizes_are_refused(words: list[str], message: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert message in done.stderr


def test_missing_wrk_is_said(tmp_path: Path) -> None:
    done = run(PATH=str(tmp_path))
    assert done.returncode == 2
    assert "wrk is not installed" in done.stderr
