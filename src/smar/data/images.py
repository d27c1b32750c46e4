"""One picture: bytes -> status, packed square, display picture. Nothing that a picture holds may stop a run.

The size in the header is checked before any pixel is decoded. JPEGs are decoded at a reduced scale
(``draft``), which makes a 12-megapixel photo about three times cheaper, unless a filter is asked for by name:
then the square is what that filter makes of the full picture, as image processors do it.
`PIL.ImageFile.LOAD_TRUNCATED_IMAGES` stays off: a picture with a missing end is `truncated`, not half
grey.
"""

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from smar.core.errors import one_of
from smar.core.sections.data import DataSettings, Fit, Resample
from smar.data.colour import to_rgb
from smar.data.metadata import bare

Status = Literal["ok", "missing", "truncated", "corrupt", "too_large", "not_an_image", "fetch_failed"]
STATUSES: tuple[Status, ...] = (
    "ok", "missing", "truncated", "corrupt", "too_large", "not_an_image", "fetch_failed",
)  # fmt: skip
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
"""Raster formats only: Pillow's EPS and WMF readers start other programs."""
SENT_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
"""What browsers show, and shoppers therefore have."""
SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG2000",
}
WORK = 1_000_000_000
"""Pixels times scans of a JPEG, which may have thousands: 64 million pixels in 15 scans are allowed."""
_BROWSER_FORMATS = ("JPEG", "PNG", "WEBP")
_TIFF_PARTS = ((273, 279), (324, 325))
"""Tags with the places and lengths of strips, and of tiles."""
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""In a JPEG; in its pixels a byte of 255 is followed by 0 or a restart."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
JPEG_QUALITY = 85
_LONGEST = 16
"""Times its short side: of a longer picture only the middle is scaled."""


class Unusable(Exception):
    """A picture that is not used, with its status and the reason."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(status, reason)  # both in args: an exception that goes to another process is rebuilt from them
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class ImageOptions:
    """What the decoder needs of the settings; small enough to send to every process."""

    size: int
    fit: str
    thumbnail: int
    max_bytes: int
    max_pixels: int
    resample: str | None = None
    formats: tuple[str, ...] = FORMATS

    @property
    def seconds(self) -> int:
        """CPU time after which a decoder in a process of its own is ended: several times what any format takes."""
        return 10 + self.max_pixels // 4_000_000

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise one_of(self.fit, get_args(Fit), "the fit of a picture")
        if self.resample is not None and self.resample not in get_args(Resample):
            raise one_of(self.resample, get_args(Resample), "the filter of a picture")

    @classmethod
    def of(cls, settings: DataSettings) -> "ImageOptions":
        """Take the picture options out of the data settings."""
        return cls(
            settings.image_size,
            settings.image_fit,
            settings.thumbnail_size,
            settings.max_image_bytes,
            settings.max_image_pixels,
            settings.image_resample,
        )


@dataclass(frozen=True)
class Decoded:
    """Outcome for one picture."""

    status: Status
    error: str = ""
    """Why it is not used; of a picture that is `ok`, what is wrong with its colours."""
    width: int = 0
    """Width in the file's header, before any EXIF rotation; 0 if the header could not be read."""
    height: int = 0
    packed: NDArray[np.uint8] | None = None
    """uint8 [S, S, 3] if the status is ok."""
    display: bytes = b""
    """JPEG, PNG or WebP bytes for the page; empty if not ok or ``thumbnail_size`` is 0."""


def read_picture(path: Path, max_bytes: int) -> bytes:
    """Read a picture file; raises Unusable if it is absent, no regular file, or larger than `max_bytes`."""
    try:
        info = path.stat()
        if not S_ISREG(info.st_mode):
            raise Unusable("not_an_image", "not a regular file")
        if info.st_size > max_bytes:
            raise Unusable("too_large", f"{info.st_size:,} bytes, allowed {max_bytes:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        # without the path, which the table names: equal reasons are counted together
        raise Unusable("missing", getattr(error, "strerror", None) or f"no path: {error}") from None


def decode(source: bytes | Path, options: ImageOptions) -> Decoded:
    """Decode one picture. Never raises: whatever is wrong becomes a status and a reason."""
    width = height = 0
    data = b""
    try:
        data = source if isinstance(source, bytes) else read_picture(source, options.max_bytes)
        if not data:
            raise Unusable("corrupt", "empty file")
        if len(data) > options.max_bytes:
            raise Unusable("too_large", f"{len(data):,} bytes, allowed {options.max_bytes:,}")
        with pixel_limit(options.max_pixels), _open(data, options.formats) as image:
            width, height = image.size
            if width * height > options.max_pixels:
                raise Unusable("too_large", f"{width}x{height} pixels, allowed {options.max_pixels:,}")
            if (work := width * height * (scans := _scans(image, data))) > WORK:
                raise Unusable("too_large", f"{width}x{height} pixels in {scans} scans are {work:,}, allowed {WORK:,}")
            return _decode(image, data, options)
    except Unusable as error:
        return Decoded(error.status, str(error), width, height)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        reason = "too little memory" if isinstance(error, MemoryError) else f"more than {options.max_pixels:,} pixels"
        return Decoded("too_large", reason, width, height)
    except Exception as error:  # Pillow's plugins raise anything on damaged bytes: OSError, SyntaxError, struct.error
        status: Status = "truncated" if is_cut(data, error) else "corrupt"
        return Decoded(status, f"{type(error).__name__} while decoding", width, height)  # its text may quote the file


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow refuse larger pictures while it reads headers; its global limit is put back afterwards."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _open(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        known = next((kind for start, kind in SIGNATURES.items() if data.startswith(start)), None)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            known = "WEBP"
        if known in formats:
            status: Status = "truncated" if is_cut(data) else "corrupt"
            raise Unusable(status, "the header cannot be read") from None
        seen = known or "unknown content"
        raise Unusable("not_an_image", f"{len(data):,} bytes of {seen}; allowed: {', '.join(formats)}") from None


def _scans(image: Image.Image, data: bytes) -> int:
    """How often the decoder goes over the pixels."""
    if image.format in ("JPEG", "MPO"):
        return _jpeg_scans(data)
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression")):
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        parts = [part for at, size in _TIFF_PARTS for part in zip(tags.get(at, ()), tags.get(size, ()), strict=False)]
        return max((_jpeg_scans(data[start : start + length]) for start, length in dict.fromkeys(parts)), default=1)
    return 1


def _jpeg_scans(data: bytes) -> int:
    """Scans of a JPEG up to its end mark; what follows, and a thumbnail in its metadata, are not decoded."""
    at, count = 2, 0
    while found := _MARKER.search(data, at):
        kind, at = found[1][0], found.end()
        if kind == 0xD9:
            break
        count += kind == 0xDA
        at += int.from_bytes(data[at : at + 2]) if kind not in (0x01, 0xD8) else 0
    return max(1, count)


def is_cut(data: bytes, error: Exception | None = None) -> bool:
    """Whether a file that failed to decode lacks its end, by Pillow's message or by the format's end mark."""
    if isinstance(error, EOFError) or "truncated" in str(error):
        return True
    tail = data[-64:]
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" not in tail
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    if data[:4] == b"RIFF":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return data.startswith(b"GIF8") and not data.rstrip(b"\0").endswith(b";")


def _decode(image: Image.Image, data: bytes, options: ImageOptions) -> Decoded:
    width, height = image.size
    kept = _shown_as_is(image, data, options.thumbnail) if options.thumbnail else None
    if image.format in ("JPEG", "MPO") and options.resample is None:
        image.draft(image.mode, _needed_size(width, height, options))
    image.load()  # before anything that may load by itself and hide the error
    upright, moved, problem = _upright(image)
    packed = fit_square(upright, options.size, options.fit, options.resample)
    if kept is None or moved:
        kept = _display(upright, options.thumbnail) if options.thumbnail else b""
    return Decoded("ok", problem and f"{problem}: not applied", width, height, packed, kept)


def _upright(image: Image.Image) -> tuple[Image.Image, bool, str]:
    """The picture in sRGB as EXIF turns it, whether that changed it, and what is wrong with its colours."""
    turn = _orientation(image)
    upright, moved, problem = to_rgb(image)
    return (upright, moved, problem) if turn is None else (upright.transpose(turn), True, problem)


def square(image: Image.Image, options: ImageOptions) -> NDArray[np.uint8]:
    """An opened picture as uint8 [S, S, 3]; raises what Pillow does where it is damaged."""
    image.load()
    return fit_square(_upright(image)[0], options.size, options.fit, options.resample)


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Return the turn that EXIF asks for; damaged EXIF asks for none, because the pixels are still good."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # a damaged EXIF block raises anything; it must not cost the picture
        return None
    return _TURNS.get(value) if isinstance(value, int) else None


def _shown_as_is(image: Image.Image, data: bytes, longest: int) -> bytes | None:
    """The source without its metadata, if it may go to the page: small, still, of a common kind, without ballast."""
    width, height = image.size
    still = not getattr(image, "is_animated", False)  # the number of a GIF's frames takes reading all of them
    known = image.format in _BROWSER_FORMATS and image.mode in ("RGB", "L", "RGBA", "P", "LA", "1")
    if max(width, height) > longest or not still or not known:
        return None
    small = bare(data)
    return small if small is not None and len(small) <= 3 * width * height + 16_384 else None


def _needed_size(width: int, height: int, options: ImageOptions) -> tuple[int, int]:
    """Smallest size to decode at so that neither the packed nor the display picture is ever enlarged."""
    side = max(width, height) if options.fit == "pad" else min(width, height)
    scale = min(1.0, max(options.size / side, options.thumbnail / max(width, height)))
    return max(1, math.ceil(width * scale)), max(1, math.ceil(height * scale))


def fit_square(image: Image.Image, size: int, fit: str, resample: str | None = None) -> NDArray[np.uint8]:
    """Bring RGB to uint8 [size, size, 3]: pad (white border), squash (stretch) or crop (centre).

    `resample` names a filter; None is bicubic, with large pictures halved before it.
    """
    width, height = image.size
    filter_ = Image.Resampling[(resample or "bicubic").upper()]
    gap = 2.0 if resample is None else None
    if fit == "squash":
        return np.asarray(image.resize((size, size), filter_, reducing_gap=gap))
    if fit == "crop":
        side = min(width, height)
        if resample and max(width, height) <= _LONGEST * side:  # in whole pixels, to the last bit as others do it
            image = image.resize((int(size * width / side), int(size * height / side)), filter_)
            x, y = ((length - size) // 2 for length in image.size)
            return np.asarray(image.crop((x, y, x + size, y + size)))
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((size, size), filter_, box=box, reducing_gap=gap))
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", (size, size), "white")
    corner = ((size - inner[0]) // 2, (size - inner[1]) // 2)
    canvas.paste(image.resize(inner, filter_, reducing_gap=gap), corner)
    return np.asarray(canvas)


def _display(image: Image.Image, longest: int) -> bytes:
    """Encode an RGB picture as JPEG with at most `longest` pixels a side."""
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    small.info = {}  # Pillow would write a comment that the source has
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
