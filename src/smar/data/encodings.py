"""Text files in any encoding and compression -> UTF-8, which is all that the database reads.

UTF-8 and UTF-16 are found by themselves (byte order mark, or the zero bytes of ASCII characters); everything else is
what ``data.encoding`` says.
"""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pyarrow as pa

from smar.core.errors import InputError

CHUNK = 1 << 22
HEAD = 1 << 16
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
ADVICE = (
    "Name the file's encoding, for example --set data.encoding=cp1252 (or gb18030, big5, shift_jis; any that Python "
    "knows); data.encoding=utf-8 rejects such lines and reads the rest."
)


def as_utf8(file: Path, encoding: str | None, target: Path) -> Path:
    """The file itself where it is UTF-8, else `target`, written as UTF-8.

    Args:
        file: the user's file, also compressed (.gz, .zst).
        encoding: ``data.encoding``; a byte order mark goes before it.
        target: where to write, uncompressed.

    Raises:
        InputError: the bytes are not of the encoding; the message shows the first bad ones and their line.
    """
    with opened(file) as source:
        found = _sniff(source.read(HEAD))
    name = found or encoding or "utf-8"
    if codecs.lookup(name).name in ("utf-8", "utf-8-sig"):
        return file
    with target.open("wb") as out:
        for text in _decoded(file, name, file):
            out.write(text.encode("utf-8", "surrogatepass"))
    return target


def check_utf8(source: Path, encoding: str | None, file: Path) -> None:
    """Raise InputError for the first bytes that are not UTF-8, unless ``data.encoding`` says that it is."""
    if encoding is None:
        for _ in _decoded(source, "utf-8", file):
            pass


@contextmanager
def opened(file: Path) -> Iterator[pa.NativeFile]:
    """The bytes of a file, decompressed by its name."""
    with pa.input_stream(str(file), compression="detect") as source:
        yield source


def chunks(file: Path) -> Iterator[bytes]:
    """The decompressed bytes of a file."""
    with opened(file) as source:
        while chunk := source.read(CHUNK):
            yield chunk


def _sniff(head: bytes) -> str | None:
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    zeros = head[0::2].count(0), head[1::2].count(0)  # ASCII in UTF-16, big and little endian
    if sum(zeros) and min(zeros) * 20 <= max(zeros):
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return None


def _decoded(source: Path, name: str, file: Path) -> Iterator[str]:
    decoder, line = codecs.getincrementaldecoder(name)(), 1
    for chunk in chain(chunks(source), [b""]):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            bad = error.object[error.start : error.end]
            line += error.object[: error.start].decode(name, "replace").count("\n")
            near = error.object[max(0, error.start - 20) : error.end + 10]
            raise InputError(
                f"{file} is not {name}: byte {bad.hex(' ')} in line {line} ({near!r}) has no meaning there. {ADVICE}"
            ) from None
        line += text.count("\n")
        yield text
