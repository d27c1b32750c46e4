import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from shop_tables import picture

from smar.data.images import STATUSES, Decoded, ImageOptions, decode

OPTIONS = ImageOptions(16, "pad", 32, 1_000_000, 1_000_000)
RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)


def noise(size: tuple[int, int] = (120, 90)) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **save: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


def centre(outcome: Decoded) -> tuple[int, ...]:
    assert outcome.status == "ok", outcome
    assert outcome.packed is not None
    assert outcome.packed.shape == (16, 16, 3)
    assert outcome.packed.dtype == np.uint8
    return tuple(int(value) for value in outcome.packed[8, 8])


def near(seen: tuple[int, ...], wanted: tuple[int, ...], by: int = 6) -> bool:
    return max(abs(int(a) - b) for a, b in zip(seen, wanted, strict=True)) <= by


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_formats(kind: str) -> None:
    assert near(centre(decode(picture("red", kind=kind), OPTIONS)), RED)


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "wanted"),
    [
        ("CMYK", (0, 255, 255, 0), "JPEG", RED),
        ("L", 100, "JPEG", (100, 100, 100)),
        ("1", 1, "PNG", WHITE),
        ("LA", (0, 0), "PNG", WHITE),
        ("RGBA", (0, 0, 0, 0), "PNG", WHITE),
        ("RGBA", (0, 0, 255, 128), "WEBP", (127, 127, 255)),
        ("I;16", 32768, "PNG", (128, 128, 128)),
        ("I;16", 65535, "TIFF", WHITE),
        ("I", 32768, "TIFF", (128, 128, 128)),
        ("F", 0.5, "TIFF", (128, 128, 128)),
        ("LAB", (136, 208, 195), "TIFF", (255, 0, 0)),
    ],
)
def test_modes(mode: str, colour: Any, kind: str, wanted: tuple[int, ...]) -> None:
    if mode == "LAB":
        wanted = Image.new("LAB", (1, 1), colour).convert("RGB").getpixel((0, 0))  # type: ignore[assignment]
    assert near(centre(decode(picture(colour, mode=mode, kind=kind), OPTIONS)), wanted)


def test_palette_with_transparency_is_laid_on_white() -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([*RED, *BLUE])
    assert near(centre(decode(encoded(image, "PNG"), OPTIONS)), BLUE)
    assert near(centre(decode(encoded(image, "PNG", transparency=1), OPTIONS)), WHITE)
    assert near(centre(decode(encoded(image, "GIF", transparency=1), OPTIONS)), WHITE)
    clear = Image.new("RGB", (20, 20), BLUE)
    assert near(centre(decode(encoded(clear, "PNG", transparency=BLUE), OPTIONS)), WHITE)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    outcome = decode(data, OPTIONS)
    assert near(centre(outcome), RED)
    assert Image.open(io.BytesIO(outcome.display)).format == "JPEG"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation: int) -> None:
    """Turn a picture whose left half is red; the decoder must turn it back."""
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste("red", (0, 0, 32, 32))
    back: dict[int, Any] = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    outcome = decode(encoded(stored, "JPEG", exif=exif, quality=95), ImageOptions(16, "squash", 64, 10**6, 10**6))
    assert outcome.packed is not None
    assert near(tuple(outcome.packed[8, 3]), RED, 12)
    assert near(tuple(outcome.packed[8, 12]), WHITE, 12)
    shown = Image.open(io.BytesIO(outcome.display))
    assert shown.size == (64, 32)
    assert (outcome.width, outcome.height) == stored.size


def test_damaged_exif_costs_nothing() -> None:
    data = encoded(Image.new("RGB", (30, 30), "red"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert near(centre(decode(data, OPTIONS)), RED)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_truncated(kind: str, share: float) -> None:
    data = encoded(noise(), kind)
    outcome = decode(data[: int(len(data) * share)], OPTIONS)
    assert outcome.status == "truncated", outcome
    assert outcome.packed is None
    assert outcome.error


def test_truncated_progressive_jpeg() -> None:
    data = encoded(noise(), "JPEG", progressive=True)
    assert decode(data[: len(data) // 2], OPTIONS).status == "truncated"


def test_corrupt() -> None:
    data = bytearray(encoded(noise(), "PNG"))
    data[data.index(b"IDAT") + 4] ^= 0xFF
    assert decode(bytes(data), OPTIONS).status == "corrupt"
    assert decode(b"", OPTIONS) == Decoded("corrupt", "empty file")
    assert decode(b"\x89PNG\r\n\x1a\n" + b"junk" * 20 + b"IEND\xaeB`\x82", OPTIONS).status == "corrupt"


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>',
        b"%PDF-1.4 ...",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"x",
        b"\0" * 5000,
        '{"error": "no such picture"}'.encode("utf-16"),
    ],
)
def test_not_an_image(data: bytes) -> None:
    outcome = decode(data, OPTIONS)
    assert outcome.status == "not_an_image"
    assert "bytes of unknown content; allowed: JPEG, PNG" in outcome.error


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1001, 1000), (20_000, 20_000), (60_000, 60_000)])
def test_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    outcome = decode(bomb(*size), OPTIONS)
    assert outcome.status == "too_large"
    assert "pixels" in outcome.error


def test_limits_are_the_settings_and_not_pillows() -> None:
    large = ImageOptions(16, "pad", 0, 10**7, 400_000_000)
    before = Image.MAX_IMAGE_PIXELS
    assert decode(bomb(15_000, 15_000), large).status == "truncated"
    assert decode(picture(size=(900, 900)), OPTIONS).status == "ok"
    assert decode(picture(size=(900, 900)), ImageOptions(16, "pad", 0, 100, 10**6)).status == "too_large"
    assert before == Image.MAX_IMAGE_PIXELS
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_files(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(picture())
    (tmp_path / "cut.jpg").write_bytes(picture(size=(300, 300))[:400])
    (tmp_path / "empty.jpg").touch()
    names = ("good.jpg", "cut.jpg", "empty.jpg", "absent.jpg", "nul\0.jpg", "good.jpg/inside")
    statuses = [decode(tmp_path / name, OPTIONS).status for name in names]
    assert statuses == ["ok", "truncated", "corrupt", "missing", "missing", "missing"]
    assert decode(tmp_path, OPTIONS).status == "not_an_image"
    assert decode(tmp_path / "good.jpg", ImageOptions(16, "pad", 0, 99, 10**6)).status == "too_large"


def test_one_pixel_and_thin_pictures() -> None:
    assert near(centre(decode(picture("red", (1, 1), "PNG"), OPTIONS)), RED)
    for size in ((1, 500), (500, 1)):
        for fit in ("pad", "squash", "crop"):
            assert decode(picture("red", size, "PNG"), ImageOptions(16, fit, 32, 10**6, 10**6)).status == "ok"


def test_fits() -> None:
    image = Image.new("RGB", (80, 40), "blue")
    image.paste("red", (0, 0, 20, 40))
    data = encoded(image, "PNG")
    packed = {fit: decode(data, ImageOptions(16, fit, 0, 10**6, 10**6)).packed for fit in ("pad", "squash", "crop")}
    corner = {fit: tuple(int(v) for v in array[1, 0]) for fit, array in packed.items() if array is not None}
    assert near(corner["pad"], WHITE)
    assert near(corner["squash"], RED)
    assert near(corner["crop"], BLUE, 60)
    assert decode(data, ImageOptions(16, "pad", 0, 10**6, 10**6)).display == b""


@pytest.mark.parametrize("fit", ["pad", "squash", "crop"])
def test_reduced_decoding_of_a_large_jpeg_shows_the_same(fit: str) -> None:
    """A smooth 1600x1200 photo decoded with draft differs little from one decoded in full."""
    y, x = np.mgrid[0:1200, 0:1600]
    smooth = np.stack([x * 255 // 1600, y * 255 // 1200, (x + y) * 255 // 2800], axis=-1).astype(np.uint8)
    image = Image.fromarray(smooth)
    options = ImageOptions(64, fit, 256, 10**7, 10**7)
    jpeg, png = decode(encoded(image, "JPEG", quality=95), options), decode(encoded(image, "PNG"), options)
    assert jpeg.packed is not None
    assert png.packed is not None
    assert np.abs(jpeg.packed.astype(int) - png.packed.astype(int)).mean() < 3
    assert Image.open(io.BytesIO(jpeg.display)).size == (256, 192)
    assert (jpeg.width, jpeg.height) == (1600, 1200)


def test_display_pictures() -> None:
    small = picture(size=(32, 20))
    assert decode(small, OPTIONS).display == small
    for data in (picture(size=(33, 20)), picture(kind="BMP", size=(20, 20)), picture((0, 0, 0, 0), mode="CMYK"),
                 small + b"ballast" * 5000):  # fmt: skip
        outcome = decode(data, OPTIONS)
        shown = Image.open(io.BytesIO(outcome.display))
        assert outcome.display != data
        assert (shown.format, shown.mode) == ("JPEG", "RGB")
        assert max(shown.size) <= 32


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "JPEG2000"]), st.data())
def test_no_damage_raises_or_warns(kind: str, data: st.DataObject) -> None:
    source = bytearray(encoded(noise((24, 20)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(source) - 1))
        source[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(source)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = decode(bytes(source[:cut]), OPTIONS)
    assert outcome.status in STATUSES
    assert (outcome.packed is not None) == (outcome.status == "ok")
