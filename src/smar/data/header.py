"""Text files without a header: a copy that begins with the names of the columns."""

import csv
import gzip
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from smar.errors import InputError


def with_header(file: Path, names: Sequence[str], delimiter: str, target: Path) -> Path:
    """Copy `file` with a first line of `names`; both gzip and zstd files are parts that follow each other.

    Raises:
        InputError: the file is in UTF-16, or cannot be read.
    """
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(names)
    line = text.getvalue().encode()
    match file.suffix.lower():
        case ".gz":
            line = gzip.compress(line, mtime=0)
        case ".zst":
            line = pa.compress(line, codec="zstd", asbytes=True)
    try:
        with file.open("rb") as source, target.open("wb") as out:
            start = source.read(3)
            if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise InputError(f"{file}: a file in UTF-16 takes no data.header. Write it in UTF-8.")
            out.write(line + start.removeprefix(b"\xef\xbb\xbf"))
            shutil.copyfileobj(source, out, 1 << 20)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}.") from None
    return target
