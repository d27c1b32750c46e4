"""Pictures with colour profiles come out in sRGB; what the page serves has pixels and nothing else."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import piexif
import pytest
from colour_profiles import ADOBE, P3, SRGB, SWAPPED, cmyk_profile, grey_profile, rgb_profile
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from shop_tables import items, log, picture, read, run

from smar.data.dataset import Dataset
from smar.data.images import Decoded, ImageOptions, decode
from smar.data.metadata import bare

OPTIONS = ImageOptions(16, "pad", 64, 1_000_000, 1_000_000)
STANDARD = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def shown(outcome: Decoded) -> Image.Image:
    assert outcome.status == "ok", outcome
    return Image.open(io.BytesIO(outcome.display)).convert("RGB")


def colours(outcome: Decoded) -> list[tuple[int, ...]]:
    """Colour in the middle of what the model sees, and of what the page shows."""
    page = shown(outcome)
    assert outcome.packed is not None
    middle = page.getpixel((page.width // 2, page.height // 2))
    assert isinstance(middle, tuple)
    return [tuple(outcome.packed[8, 8].tolist()), middle]


def near(outcome: Decoded, wanted: tuple[int, ...], by: int = 4) -> bool:
    return all(np.abs(np.subtract(seen, wanted)).max() <= by for seen in colours(outcome))


def encode_light(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def test_a_profile_that_swaps_channels_swaps_them() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        data = picture(RED, kind=kind, icc_profile=rgb_profile(SWAPPED))
        assert near(decode(data, OPTIONS), BLUE, 8), kind
    for size in ((40, 30), (400, 300)):  # a small one, which may be shown as it is, and one that is not
        assert near(decode(picture(RED, size, "PNG", icc_profile=rgb_profile(SWAPPED)), OPTIONS), BLUE)


@pytest.mark.parametrize(
    ("primaries", "matrix"),
    [
        # linear light of the space to linear sRGB, as published in CSS Color 4
        (ADOBE, [[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]]),
        (P3, [[1.22494, -0.22494, 0], [-0.04206, 1.04206, 0], [-0.01964, -0.07864, 1.09827]]),
    ],
)
def test_wide_spaces(primaries: Any, matrix: list[list[float]]) -> None:
    """Against the formula, in colours that both spaces hold and in one that only the wide one does."""
    for stored in ((140, 120, 90), (90, 140, 120), (10, 255, 10)):
        light = np.array(matrix) @ (np.array(stored) / 255) ** 2.2
        wanted = tuple(round(255 * encode_light(float(value))) for value in np.clip(light, 0, 1))
        outcome = decode(picture(stored, kind="PNG", icc_profile=rgb_profile(primaries)), OPTIONS)
        assert near(outcome, wanted, 3), (stored, colours(outcome), wanted)


def test_an_srgb_profile_leaves_every_pixel_alone() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8))
    plain = io.BytesIO()
    noise.save(plain, "PNG")
    tagged = io.BytesIO()
    noise.save(tagged, "PNG", icc_profile=STANDARD)
    outcome = decode(tagged.getvalue(), OPTIONS)
    assert outcome.display == plain.getvalue()
    np.testing.assert_array_equal(outcome.packed, decode(plain.getvalue(), OPTIONS).packed)
    assert near(decode(picture((90, 90, 90), kind="PNG", icc_profile=rgb_profile(SRGB, 1.8)), OPTIONS), (109,) * 3)


def test_grey_and_cmyk() -> None:
    wanted = round(255 * encode_light((100 / 255) ** 1.0))
    for mode in ("L", "LA", "I;16"):
        colour = {"L": 100, "LA": (100, 255), "I;16": 100 * 257}[mode]
        data = picture(colour, mode=mode, kind="PNG", icc_profile=grey_profile(1.0))
        assert near(decode(data, OPTIONS), (wanted,) * 3), mode
    assert near(decode(picture(200, mode="L", kind="JPEG", icc_profile=rgb_profile(SWAPPED)), OPTIONS), (200,) * 3)
    for kind in ("JPEG", "TIFF"):
        data = picture((255, 0, 0, 0), mode="CMYK", kind=kind, icc_profile=cmyk_profile())
        assert near(decode(data, OPTIONS), (255, 0, 0), 12), kind
        assert near(decode(picture((0, 0, 0, 0), mode="CMYK", kind=kind, icc_profile=cmyk_profile()), OPTIONS), WHITE)
    assert near(decode(picture((0, 255, 255, 0), mode="CMYK"), OPTIONS), RED)


def test_transparency_is_kept_apart_from_colours() -> None:
    half = picture((255, 0, 0, 128), mode="RGBA", kind="PNG", icc_profile=rgb_profile(SWAPPED))
    assert near(decode(half, OPTIONS), (127, 127, 255))
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([*GREEN, *RED])
    for transparency, wanted in ((0, BLUE), (1, WHITE)):
        buffer = io.BytesIO()
        palette.save(buffer, "PNG", transparency=transparency, icc_profile=rgb_profile(SWAPPED))
        assert near(decode(buffer.getvalue(), OPTIONS), wanted)


@pytest.mark.parametrize(
    "profile",
    [b"junk", bytes(200), rgb_profile(SWAPPED)[:200], cmyk_profile(), grey_profile(2.2),
     ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()],
    ids=["junk", "zeros", "cut", "cmyk", "grey", "lab"],
)  # fmt: skip
def test_a_profile_that_cannot_be_used_costs_no_picture(profile: bytes) -> None:
    outcome = decode(picture(RED, kind="PNG", icc_profile=profile), OPTIONS)
    assert near(outcome, RED)
    assert "colour profile" in outcome.error
    assert outcome.error.endswith("not applied")
    assert b"iCCP" not in outcome.display


def test_what_is_wrong_with_colours_is_counted(tmp_path: Path) -> None:
    good, bad = picture(RED), picture(RED, icc_profile=b"junk")
    summary = run(
        tmp_path, [{**row, "image": image} for row, image in zip(items(3), (bad, good, bad), strict=True)], log()[:3]
    )
    assert summary.image_status["ok"] == 3
    assert [row["error"] for row in read(tmp_path, "images.parquet")] == [
        "damaged colour profile: not applied", None, "damaged colour profile: not applied",
    ]  # fmt: skip
    assert (
        f"pictures: 2 ok, but damaged colour profile: not applied; for example the {len(bad)} bytes of item 'i0'"
        in summary.notes
    )


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_the_gamma_of_a_png() -> None:
    plain = picture((100, 100, 100), kind="PNG")
    chunks = {"linear": (100_000, b"", encode_light(100 / 255)), "usual": (45_455, b"", 100 / 255),
              "srgb": (100_000, png_chunk(b"sRGB", b"\0"), 100 / 255)}  # fmt: skip
    for name, (gamma, more, wanted) in chunks.items():
        data = plain[:33] + png_chunk(b"gAMA", struct.pack(">I", gamma)) + more + plain[33:]
        assert near(decode(data, OPTIONS), (round(255 * wanted),) * 3, 1), name


def with_metadata(kind: str) -> bytes:
    """A small picture with all that cameras and editors write into one: places, names, a second picture, a profile."""
    small = io.BytesIO()
    Image.new("RGB", (16, 12), "yellow").save(small, "JPEG")
    exif = piexif.dump(
        {
            "0th": {piexif.ImageIFD.Make: b"SECRET camera", piexif.ImageIFD.Orientation: 1},
            "Exif": {piexif.ExifIFD.UserComment: b"ASCII\0\0\0SECRET"},
            "GPS": {
                piexif.GPSIFD.GPSLatitudeRef: b"N",
                piexif.GPSIFD.GPSLatitude: ((52, 1), (31, 1), (12, 1)),
                piexif.GPSIFD.GPSLongitudeRef: b"E",
                piexif.GPSIFD.GPSLongitude: ((13, 1), (24, 1), (18, 1)),
            },
            "1st": {piexif.ImageIFD.Make: b"SECRET"},
            "thumbnail": small.getvalue(),
        }
    )
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    save: dict[str, Any] = {"exif": exif, "icc_profile": STANDARD, "xmp": b"<x:xmpmeta>SECRET"}
    if kind == "JPEG":
        save |= {"comment": b"SECRET", "dpi": (72, 72), "quality": 90}
    elif kind == "PNG":
        save["pnginfo"] = PngInfo()
        save["pnginfo"].add_text("Author", "SECRET")
        save["pnginfo"].add_itxt("XML:com.adobe.xmp", "SECRET", zip=False)
    elif kind == "WEBP":
        save["lossless"] = True
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


@pytest.mark.parametrize("longest", [64, 20])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_no_metadata_is_served(kind: str, longest: int) -> None:
    """Neither of a picture that is shown as it is (up to `longest` pixels), nor of one that is encoded again."""
    data = with_metadata(kind) + b"SECRET beyond the end"
    assert b"SECRET" in data
    outcome = decode(data, ImageOptions(16, "pad", longest, 1_000_000, 1_000_000))
    page = Image.open(io.BytesIO(outcome.display))
    page.load()
    for word in (
        b"SECRET",
        b"Exif",
        b"EXIF",
        b"eXIf",
        b"http://ns.adobe.com",
        b"XMP",
        b"ICC",
        b"acsp",
        b"tEXt",
        b"iTXt",
    ):
        assert word not in outcome.display
    assert not page.getexif()
    assert not {"exif", "xmp", "icc_profile", "comment", "Author", "photoshop", "mp"} & set(page.info)
    if page.format in ("JPEG", "WEBP"):
        assert not any(piexif.load(outcome.display)[part] for part in ("0th", "Exif", "GPS", "1st", "thumbnail"))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pixels_of_small_pictures_stay_bit_for_bit(kind: str, progressive: bool) -> None:
    data = with_metadata(kind)
    if progressive and kind == "JPEG":
        rng = np.random.default_rng(1)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (50, 60, 3), dtype=np.uint8)).save(
            buffer, "JPEG", progressive=True, comment=b"SECRET", restart_marker_blocks=2, exif=piexif.dump({})
        )
        data = buffer.getvalue()
    kept = bare(data)
    assert kept is not None
    assert len(kept) < len(data)
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(kept))
    assert before.format == after.format == kind
    assert before.tobytes() == after.tobytes()
    assert bare(kept) == kept
    assert decode(data, OPTIONS).display == kept


def test_a_turned_photo_is_upright_without_its_exif(tmp_path: Path) -> None:
    """Through `prepare` into the file that the service reads pictures from."""
    exif = piexif.dump({"0th": {piexif.ImageIFD.Orientation: 6}, "GPS": {piexif.GPSIFD.GPSMapDatum: b"SECRET"}})
    photo = picture("red", (40, 20), exif=exif)
    run(tmp_path, [{**row, "image": photo} for row in items(1)], log()[:1] + log()[-2:-1])
    served = Dataset.open(tmp_path / "out").pictures.read_bytes()
    assert Image.open(io.BytesIO(served)).size == (20, 40)
    assert b"SECRET" not in served
    assert b"Exif" not in served
    assert not piexif.load(served)["GPS"]


def test_layouts_that_are_not_understood_are_left_to_the_encoder() -> None:
    jpeg = picture()
    for data in (jpeg[:-2], jpeg[:2] + b"\0" + jpeg[2:], b"\xff\xd8", b"", b"GIF89a", picture(kind="PNG")[:-6],
                 picture(kind="WEBP")[:20]):  # fmt: skip
        assert bare(data) is None or Image.open(io.BytesIO(bare(data) or b"")).size == (40, 30)
