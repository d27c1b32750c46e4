"""Where tables come from: the files that a path, a folder or a glob stands for, and their format."""

import glob
from pathlib import Path

from smar.errors import InputError

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json lines",
    ".ndjson": "json lines",
    ".json": "json",
}
_COMPRESSED = (".gz", ".zst")


def file_format(path: Path) -> str | None:
    """Format of a file by its name, None when it is none of ours."""
    suffixes = path.suffixes[:-1] if path.suffix.lower() in _COMPRESSED else path.suffixes
    kind = FORMATS.get(suffixes[-1].lower()) if suffixes else None
    return None if kind == "parquet" and path.suffix.lower() in _COMPRESSED else kind


def find_files(paths: list[str], kind: str) -> tuple[list[Path], str]:
    """Expand files, directories and globs into the files of one table and their common format.

    Raises:
        InputError: nothing matched, a file has an unknown format, or the formats are mixed.
    """
    if not paths:
        raise InputError(f"--{kind}: no file was given.")
    found: dict[Path, str] = {}
    for path in paths:
        for file in _expand(path, kind):
            name = file_format(file)
            if name is None:
                known = ", ".join(FORMATS)
                raise InputError(f"--{kind} {file}: unknown file type. Allowed: {known} (text also with .gz or .zst).")
            found.setdefault(file, name)
    formats = sorted(set(found.values()))
    if len(formats) > 1:
        examples = ", ".join(next(str(file) for file in found if found[file] == name) for name in formats)
        raise InputError(
            f"--{kind}: one table in mixed formats ({', '.join(formats)}; for example {examples}). "
            f"Give files of one format, or a narrower glob."
        )
    return list(found), formats[0]


def _expand(path: str, kind: str) -> list[Path]:
    target = Path(path)
    if target.is_dir():
        files = sorted(f for f in target.rglob("*") if f.is_file() and file_format(f) and not _hidden(f, target))
        if not files:
            raise InputError(f"--{kind} {path}: the directory holds no table. Allowed: {', '.join(FORMATS)}.")
        return files
    if target.is_file():
        return [target]
    files = _matches(path)
    if not files:
        raise InputError(f"--{kind} {path}: no file matched. Give an existing file, a directory or a glob.")
    return files


def _matches(pattern: str) -> list[Path]:
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    return sorted(path for path in map(Path, found) if path.is_file())


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
