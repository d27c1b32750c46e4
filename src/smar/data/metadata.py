"""Encoded pictures without what they say beside their pixels: EXIF with its places, XMP, comments, colour profiles.

Pixels are copied bit for bit. What is not known to be needed for them is left out, and so is what follows their end.
"""

import re
import struct
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_WEBP_PIXELS = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_WEBP_ALPHA = 0x10
_JPEG_PIXELS = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xDE)})  # frames, tables, scans, restart intervals
_JFIF, _ADOBE = 0xE0, 0xEE
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
"""What ends a scan: in one, a byte of 255 is followed by 0 or by the number of a restart."""


def bare(data: bytes) -> bytes | None:
    """A JPEG, PNG or WebP with its pixels alone; None for another format, or one that is not laid out as it should."""
    try:
        if data.startswith(b"\xff\xd8"):
            return b"\xff\xd8" + b"".join(_jpeg(data))
        if data.startswith(_PNG):
            return _PNG + b"".join(_png(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            body = b"WEBP" + b"".join(_webp(data))
            return b"RIFF" + struct.pack("<I", len(body)) + body
    except (ValueError, IndexError, struct.error):
        pass
    return None


def _jpeg(data: bytes) -> Iterator[bytes]:
    at = 2
    while (found := _MARKER.match(data, at)) is not None and (marker := found[1][0]) != _END:
        at = found.end()
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        at += length
        if len(body) != length - 2:
            break
        if marker == _JFIF and body.startswith(b"JFIF\0"):
            body = body[:12] + b"\0\0"  # without its thumbnail
        elif marker == _ADOBE and body.startswith(b"Adobe"):
            body = body[:12]  # which says how colours are stored
        elif marker not in _JPEG_PIXELS:
            continue
        yield bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
        if marker == _SCAN:
            stop = _MARKER.search(data, at)
            yield data[at : stop.start() if stop else len(data)]
            at = stop.start() if stop else len(data)
    if found is None or marker != _END:
        raise ValueError("no end")
    yield b"\xff\xd9"


def _png(data: bytes) -> Iterator[bytes]:
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + length + 12 > len(data):
            raise ValueError("no end")
        if kind in _PNG_PIXELS:
            yield data[at : at + length + 12]
        at += length + 12


def _webp(data: bytes) -> Iterator[bytes]:
    at, end = 12, 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ValueError("no end")
    while at < end:
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if kind == b"VP8X":
            yield data[at : at + 8] + bytes((body[0] & _WEBP_ALPHA,)) + body[1:]
        elif kind in _WEBP_PIXELS:
            yield data[at : at + 8] + body + bytes(length % 2)
        at += 8 + length + length % 2
