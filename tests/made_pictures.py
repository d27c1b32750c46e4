"""Pictures for the tests of decoders, some of them made to hurt."""

import io
import re

from PIL import Image


def encoded(kind: str, size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 60).save(buffer, kind, **options)
    return buffer.getvalue()


def many_scans(count: int, size: tuple[int, int]) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each is a pass over all pixels, in some bytes."""
    whole = encoded("JPEG", size, "L", progressive=True)
    last = [found.start() for found in re.finditer(b"\xff\xda", whole)][-1]
    return whole[:-2] + whole[last:-2] * count + whole[-2:]
