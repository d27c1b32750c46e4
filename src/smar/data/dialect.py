"""How a CSV file is written, from its first lines: delimiter, names of the columns, where the rows begin.

DuckDB's CSV sniffer is not used: it gives up on a file with one ragged line, and may take a different dialect than
the header shows. The header is read with Python's csv module, so its names may hold delimiters and line breaks.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smar.core.errors import InputError
from smar.data.encodings import opened

DELIMITERS = ",;\t|"
HEAD = 1 << 20
"""Bytes in which the header and the usual width of the rows are looked for."""
_ROWS = 200
_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """What a CSV file's first lines say."""

    delimiter: str
    names: tuple[str, ...]
    """One for each field of a row; empty where the header gives none."""
    skip: int
    """Records before the first row, blank lines and the header included."""


def find_dialect(file: Path, name: str, header: Sequence[str] = ()) -> Dialect:
    """Read the header of a CSV or TSV file that is UTF-8; `header`: the names of the columns of a file without one.

    Raises:
        InputError: no header, or names that cannot be told apart.
    """
    with opened(file) as source:
        head = source.read(HEAD)
    lines = list(io.StringIO(head.decode("utf-8", "replace").lstrip("\ufeff"), newline=""))
    skip, delimiter = 0, "\t" if name == "tsv" else ""
    while skip < len(lines) and (not lines[skip].strip() or _SEP.fullmatch(lines[skip])):
        if told := _SEP.fullmatch(lines[skip]):
            delimiter = told[1]
        skip += 1
    body = lines[skip:]
    if not body:
        raise InputError(f"{file}: the table is empty (no line with the names of the columns).")
    delimiter = delimiter or max(DELIMITERS, key=lambda candidate: len(next(csv.reader(body, delimiter=candidate))))
    if header:
        line = io.StringIO()
        csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(header)
        body, skip = [line.getvalue(), *body], skip - 1
    names, width = _header(body, delimiter, whole=len(head) < HEAD)
    if not any(names):
        raise InputError(f"{file}: the first line names no column. A CSV file needs a header.")
    check_names(file, [column for column in names if column])
    return Dialect(delimiter, (*names, *[""] * width)[:width], skip + 1)


def _header(body: list[str], delimiter: str, whole: bool) -> tuple[list[str], int]:
    """Names of the header, and how many fields a row has: trailing delimiters may be in one and not in the other."""
    records = csv.reader(body, delimiter=delimiter)
    names = [column.strip() for column in next(records)]
    rows = []
    try:
        for row in records:
            rows.append(row)
            if len(rows) > _ROWS:
                break
    except csv.Error:
        pass
    rows = [row for row in (rows if whole else rows[:-1]) if row]
    widths = Counter(map(len, rows))
    width = widths.most_common(1)[0][0] if widths else len(names)
    named = max((at for at, column in enumerate(names, 1) if column), default=0)
    if named <= width < len(names):
        return names, width
    surplus = [row for row in rows if len(row) == width and any(map(str.strip, row[len(names) :]))]
    return names, len(names) if width < named or surplus else max(width, named)


def check_names(file: Path, names: Sequence[str]) -> None:
    """Refuse names of columns that are equal, or differ in case or blanks only, which no query could tell apart."""
    seen: dict[str, str] = {}
    for name in names:
        plain = " ".join(name.casefold().split())
        if (other := seen.get(plain)) is not None:
            how = "the same name" if other == name else "names that differ in case or blanks only"
            raise InputError(
                f"{file}: two columns have {how}: {other!r} and {name!r}. Rename one of them, or leave it out. "
                f"Columns seen: {', '.join(names)}."
            )
        seen[plain] = name
