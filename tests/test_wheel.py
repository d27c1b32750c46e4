"""The wheel alone, in a fresh environment with nothing but what it asks for, goes through the whole line."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: object, cwd: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.wheel
def test_the_wheel_alone_runs_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONSTRAINT", str(ROOT / "constraints.txt"))
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("smar-*.whl")
    venv.create(tmp_path / "fresh", with_pip=True)
    fresh = tmp_path / "fresh" / "bin"
    run(fresh / "python", "-m", "pip", "install", wheel, cwd=tmp_path)
    said = run(fresh / "smar", "demo", "--quick", "--no-serve", "--out", tmp_path / "demo", cwd=tmp_path)
    assert "demo done" in said
    where = run(fresh / "python", "-c", "import smar; print(smar.__file__)", cwd=tmp_path)
    assert str(tmp_path / "fresh") in where
    assert (tmp_path / "demo" / "index" / "current").is_file()
