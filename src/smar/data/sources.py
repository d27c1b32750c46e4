"""Where tables come from: files, folders and globs here or on a server, and tables of a Python program.

Parquet and text files of this machine are read where they lie. Everything else is brought into the work folder first:
remote files as they are, Arrow files and tables in memory as Parquet.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smar.core.errors import InputError
from smar.data.arrow import ArrowTable, is_table, part_of, saved_dataset, table_to_parquet, to_parquet
from smar.data.download import download
from smar.storage.location import is_remote

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json lines",
    ".ndjson": "json lines",
    ".json": "json",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_BINARY = ("parquet", "arrow")
_COMPRESSED = (".gz", ".zst")
Source = str | Path | ArrowTable
"""A path (file, folder, glob or address), or a table of pyarrow, pandas, polars or whatever speaks Arrow."""
Given = Source | Sequence[Source]
"""The sources of one table."""


@dataclass(frozen=True)
class Files:
    """The files of one table."""

    named: tuple[Path, ...]
    """As the user knows them: for messages, and the folder from which relative picture paths start."""
    local: tuple[Path, ...]
    """The files to read, one for each of `named`."""
    format: str
    """parquet, csv, tsv, json lines or json."""


def as_list(given: Given) -> list[Source]:
    """The sources of one table as a list."""
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def file_format(path: Path) -> str | None:
    """Format of a file by its name, None when it is none of ours."""
    suffixes = path.suffixes[:-1] if path.suffix.lower() in _COMPRESSED else path.suffixes
    kind = FORMATS.get(suffixes[-1].lower()) if suffixes else None
    return None if kind in _BINARY and path.suffix.lower() in _COMPRESSED else kind


def find_files(sources: Sequence[Source], kind: str, work: Path) -> Files:
    """Expand files, folders, globs and addresses into the files of one table and their common format.

    Args:
        sources: paths and tables.
        kind: items, clicks, images or queries; names the table in messages.
        work: folder for copies.

    Raises:
        InputError: nothing matched, a file has an unknown format, the formats are mixed, a server did not answer, or
            a table in memory is of no known kind.
    """
    if not sources:
        raise InputError(f"--{kind}: no file was given. Give a path, or a data.select.{kind} that makes this table.")
    found: dict[Path, tuple[Path, str]] = {}
    for number, source in enumerate(sources):
        if isinstance(source, str | Path):
            for file in _expand(str(source), kind, work / f"{kind}-remote-{number:05d}"):
                found.setdefault(file, (file, _known_format(file, kind)))
        elif is_table(source):
            target = work / f"{kind}-memory-{number:05d}.parquet"
            table_to_parquet(source, target, kind)
            found[Path(f"{kind} {number + 1} of {len(sources)} (a table in memory)")] = (target, "parquet")
        else:
            raise _no_table(source, kind)
    return _local(found, kind, work)


def _known_format(file: Path, kind: str) -> str:
    name = file_format(file)
    if name is None:
        raise InputError(f"--{kind} {file}: unknown file type. Allowed: {_allowed()}.")
    return name


def _allowed() -> str:
    return f"{', '.join(FORMATS)} (text also with .gz or .zst), and folders of `datasets.save_to_disk`"


def _no_table(source: object, kind: str) -> InputError:
    seen = f"{type(source).__module__}.{type(source).__qualname__}"
    return InputError(
        f"{kind}: a {seen} is no table that can be read. Allowed: paths, and tables of pyarrow, pandas, polars, DuckDB "
        "or another library that has __arrow_c_stream__ (a polars.LazyFrame after .collect(), a datasets.Dataset after "
        '.with_format("arrow")[:]).'
    )


def _local(found: dict[Path, tuple[Path, str]], kind: str, work: Path) -> Files:
    """Refuse mixed formats, and turn Arrow into Parquet."""
    formats = sorted({name for _, name in found.values()})
    if len(formats) > 1:
        examples = ", ".join(next(str(file) for file in found if found[file][1] == name) for name in formats)
        raise InputError(
            f"--{kind}: one table in mixed formats ({', '.join(formats)}; for example {examples}). "
            f"Give files of one format, or a narrower glob."
        )
    name, local = formats[0], [file for file, _ in found.values()]
    if name == "arrow":
        targets = [work / f"{kind}-arrow-{number:05d}.parquet" for number in range(len(local))]
        parts = [part_of(file) for file in local]
        for file, target, part in zip(local, targets, parts, strict=True):
            to_parquet(file, target, kind, part if len(set(parts)) > 1 else None)
        return Files(tuple(found), tuple(targets), "parquet")
    return Files(tuple(found), tuple(local), name)


def _expand(path: str, kind: str, copies: Path) -> list[Path]:
    if is_remote(path):
        copied = download(path, kind, copies, wanted=lambda name: file_format(Path(name)) is not None)
        return [copied] if copied.is_file() else _folder(copied, path, kind)
    target = Path(path)
    try:
        if target.is_dir():
            return _folder(target, path, kind)
        if target.is_file():
            return [target]
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise InputError(f"--{kind} {path}: cannot be read ({error.strerror}).") from None
    files = _matches(path)
    if not files:
        raise InputError(f"--{kind} {path}: no file matched. Give an existing file, a directory or a glob.")
    return files


def _folder(folder: Path, path: str, kind: str) -> list[Path]:
    files = saved_dataset(folder, kind)
    if files is None:
        files = sorted(f for f in folder.rglob("*") if f.is_file() and file_format(f) and not _hidden(f, folder))
    if not files:
        raise InputError(f"--{kind} {path}: the directory holds no table. Allowed: {_allowed()}.")
    return files


def _matches(pattern: str) -> list[Path]:
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    return sorted(path for path in map(Path, found) if path.is_file())


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
