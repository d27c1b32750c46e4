"""One picture: bytes -> status, packed square, display picture. Nothing that a picture holds may stop a run.

The size in the header is checked before any pixel is decoded. JPEGs are decoded at a reduced scale
(``draft``), which makes a 12-megapixel photo about three times cheaper.
`PIL.ImageFile.LOAD_TRUNCATED_IMAGES` stays off: a picture with a missing end is `truncated`, not half
grey.
"""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from smar.data.colour import to_rgb
from smar.data.metadata import bare
from smar.errors import one_of
from smar.sections.data import DataSettings, Fit

Status = Literal["ok", "missing", "truncated", "corrupt", "too_large", "not_an_image", "fetch_failed"]
STATUSES: tuple[Status, ...] = (
    "ok", "missing", "truncated", "corrupt", "too_large", "not_an_image", "fetch_failed",
)  # fmt: skip
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA")
"""Raster formats only: Pillow's EPS and WMF readers start other programs."""
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_BROWSER_FORMATS = ("JPEG", "PNG", "WEBP")
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

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise one_of(self.fit, get_args(Fit), "the fit of a picture")

    @classmethod
    def of(cls, settings: DataSettings) -> "ImageOptions":
        """Take the picture options out of the data settings."""
        return cls(
            settings.image_size,
            settings.image_fit,
            settings.thumbnail_size,
            settings.max_image_bytes,
            settings.max_image_pixels,
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
        with pixel_limit(options.max_pixels), _open(data) as image:
            width, height = image.size
            if width * height > options.max_pixels:
                raise Unusable("too_large", f"{width}x{height} pixels, allowed {options.max_pixels:,}")
            return _decode(image, data, options)
    except Unusable as error:
        return Decoded(error.status, str(error), width, height)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        return Decoded("too_large", str(error), width, height)
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


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
        if webp or data.startswith(SIGNATURES):
            status: Status = "truncated" if is_cut(data) else "corrupt"
            raise Unusable(status, "the header cannot be read") from None
        raise Unusable(
            "not_an_image", f"{len(data):,} bytes of unknown content; allowed: {', '.join(FORMATS)}"
        ) from None


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
    if image.format in ("JPEG", "MPO"):
        image.draft(image.mode, _needed_size(width, height, options))
    image.load()  # before anything that may load by itself and hide the error
    turn = _orientation(image)
    upright, moved, problem = to_rgb(image)
    if turn is not None:
        upright = upright.transpose(turn)
    packed = fit_square(upright, options.size, options.fit)
    if kept is None or moved or turn is not None:
        kept = _display(upright, options.thumbnail) if options.thumbnail else b""
    return Decoded("ok", problem and f"{problem}: not applied", width, height, packed, kept)


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
    still = getattr(image, "n_frames", 1) == 1
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


def fit_square(image: Image.Image, size: int, fit: str) -> NDArray[np.uint8]:
    """Bring RGB to uint8 [size, size, 3]: pad (white border), squash (stretch) or crop (centre)."""
    width, height = image.size
    filter_ = Image.Resampling.BICUBIC
    if fit == "squash":
        return np.asarray(image.resize((size, size), filter_, reducing_gap=2.0))
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((size, size), filter_, box=box, reducing_gap=2.0))
    scale = size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", (size, size), "white")
    corner = ((size - inner[0]) // 2, (size - inner[1]) // 2)
    canvas.paste(image.resize(inner, filter_, reducing_gap=2.0), corner)
    return np.asarray(canvas)


def _display(image: Image.Image, longest: int) -> bytes:
    """Encode an RGB picture as JPEG with at most `longest` pixels a side."""
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    small.info = {}  # Pillow would write a comment that the source has
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
