"""Paths of the wrong kind, and those that cannot be read or written: one sentence and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smar.core.errors import InputError
from smar.serving.engine import Engine
from tiny_line import smar

FOLDERS = {
    "train": "{} --out run",
    "evaluate": "{} dataset --out report",
    "evaluate run": "{} --out report",
    "ablate config.yaml": "{} --out ablation",
    "embed": "{} dataset --out embeddings",
    "embed run": "{} --out embeddings",
    "index": "{} --out index",
    "index embeddings": "--out index --query {}",
    "index index": "--update items.csv --run {}",
    "export": "{} --out encoder",
    "export run": "--embeddings {} --out encoder",
    "search": "{} red",
    "serve": "{}",
    "serve index": "--model {}",
    "prepare": "--items a.csv --clicks b.csv --out {}",
}
FILES = {
    "prepare": "--items a.csv --clicks b.csv --out dataset --config {}",
    "train dataset": "--out run --config {}",
    "ablate": "{} dataset --out ablation",
    "ablate config.yaml dataset": "--out ablation --qrels {}",
    "index index": "--delete {}",
    "search index": "--queries {} --run run.trec",
    "search index --queries queries.txt": "--run {}",
    "serve index": "--keys {}",
}


@pytest.mark.parametrize("command", FOLDERS)
def test_a_file_where_a_folder_is_expected(tmp_path: Path, command: str) -> None:
    file = tmp_path / "file"
    file.write_text("words\n")
    done = smar(*command.split(), *FOLDERS[command].format(file).split())
    assert done.code == 2
    assert done.says(f"{file} is a file; give ")


@pytest.mark.parametrize("command", FILES)
def test_a_folder_where_a_file_is_expected(tmp_path: Path, command: str) -> None:
    done = smar(*command.split(), *FILES[command].format(tmp_path).split())
    assert done.code == 2
    assert done.says(f"{tmp_path} is a folder; give a file")


@pytest.mark.parametrize("words", [("search", "{}", "red"), ("prepare", "--items", "{}", "--out", "dataset")])
def test_a_name_that_is_too_long(words: tuple[str, ...]) -> None:
    done = smar(*(word.format("x" * 300) for word in words))
    assert done.code == 2
    assert done.says("cannot be read", "File name too long")


def test_a_path_through_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("words\n")
    done = smar("train", tmp_path, "--out", file / "run")
    assert done.code == 2
    assert done.says(f"{file / 'run'} cannot be written: {file} is a file")
    with pytest.raises(InputError, match="current cannot be read"):
        Engine.open(file / "index")
    with pytest.raises(InputError, match="current cannot be read"):
        Engine.open(file)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not read")
def test_a_path_that_may_not_be_read_or_written(tmp_path: Path) -> None:
    """Asked of the functions alone: another user may not be allowed to read the packages of these tests."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    code = "import os, sys; from smar.commands import arguments; os.setuid(65534)\n" + (
        "for name in ('made', 'folder', 'file', 'new_file'):\n"
        "    try: getattr(arguments, name)(sys.argv[1] + '/x' * name.endswith('file'))\n"
        "    except arguments.argparse.ArgumentTypeError as error: print(name, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(closed)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["made", "folder", "file", "new_file"]
    assert all("ermission denied" in line for line in lines)
