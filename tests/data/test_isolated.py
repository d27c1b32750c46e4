"""Pictures that are made to hurt: refused before they are decoded, or with the process that they ended."""

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_pictures import encoded, many_scans
from smar.core.sections.data import DataSettings
from smar.data.images import SENT_FORMATS, ImageOptions, decode
from smar.data.isolated import IsolatedDecoder
from smar.data.pool import DecoderPool

OPTIONS = ImageOptions.of(DataSettings())


@dataclass(frozen=True)
class Hasty(ImageOptions):
    """A decoder has one second."""

    seconds = 1  # type: ignore[assignment]


@dataclass(frozen=True)
class Deadly(ImageOptions):
    """The decoder crashes when it looks at its time."""

    @property
    def seconds(self) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 1


@pytest.fixture
def isolated() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder()
    yield decoder
    decoder.close()


def test_a_small_jpeg_of_three_thousand_scans_is_refused() -> None:
    data = many_scans(3000, (3000, 3000))
    assert len(data) < 500_000
    found = decode(data, OPTIONS)
    assert found.status == "too_large"
    assert re.match(r"3000x3000 pixels in 30\d\d scans are 27,\d+,\d+,\d+, allowed 1,000,000,000", found.error)
    assert decode(many_scans(20, (3000, 3000)), OPTIONS).status == "ok"


@pytest.mark.parametrize("size", [(640, 640), (3000, 3000)])
def test_and_so_is_one_within_a_tiff(size: tuple[int, int]) -> None:
    """libtiff decodes strips of progressive JPEGs, too; many strips of one scan each are nothing special."""
    whole = encoded("TIFF", size, compression="jpeg", strip_size=40_000)
    assert decode(whole, OPTIONS).status == "ok"
    jpeg = many_scans(3000, size)
    entries = [(256, size[0]), (257, size[1]), (258, 8), (259, 7), (262, 1), (273, 8), (277, 1), (278, size[1]),
               (279, len(jpeg))]  # fmt: skip
    directory = b"".join(tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
                         for tag, value in entries)  # fmt: skip
    at = (8 + len(jpeg)).to_bytes(4, "little")
    data = b"II*\0" + at + jpeg + len(entries).to_bytes(2, "little") + directory + bytes(4)
    assert decode(data, OPTIONS).status == "too_large"


def test_what_is_not_decoded_is_not_counted() -> None:
    """A thumbnail in the metadata, and the film that phones append to a photo."""
    photo = encoded("JPEG", (4000, 3000))
    exif = Image.Exif()
    exif[0x010E] = "x" + "\xff\xda" * 100
    described = encoded("JPEG", (4000, 3000), exif=exif, comment=b"\xff\xda" * 1000)
    for data in (photo + b"\xff\xda\x00\x08" * 100_000, described):
        assert decode(data, OPTIONS).status == "ok"


def test_formats_can_be_fewer() -> None:
    few = ImageOptions(16, "pad", 0, 10**6, 10**6, formats=SENT_FORMATS)
    for kind in ("TIFF", "BMP", "PPM", "TGA", "JPEG2000"):
        data = encoded(kind)
        assert decode(data, OPTIONS).status == "ok", kind
        found = decode(data, few)
        assert found.status == "not_an_image"
        assert found.error.endswith("allowed: JPEG, PNG, WEBP, GIF, AVIF")
    for kind in SENT_FORMATS:
        assert decode(encoded(kind), few).status == "ok", kind


def test_the_same_as_in_this_process(isolated: IsolatedDecoder) -> None:
    for data in (encoded("PNG"), b"nothing", encoded("WEBP")[:-9]):
        found, expected = isolated.decode(data, OPTIONS), decode(data, OPTIONS)
        assert (found.status, found.error, found.display) == (expected.status, expected.error, expected.display)
        np.testing.assert_array_equal(found.packed, expected.packed)


def test_a_picture_that_takes_too_long_or_ends_its_decoder_is_corrupt(isolated: IsolatedDecoder) -> None:
    slow = b"P3 1700 1700 255 " + b"1 " * (3 * 1700 * 1700)
    hasty, deadly = (kind(16, "pad", 0, 20_000_000, 4_000_000) for kind in (Hasty, Deadly))
    for options, reason in ((hasty, "decoding it takes more than 1 CPU seconds"), (deadly, "it ends its decoder")):
        for _ in range(2):
            found = isolated.decode(slow, options)
            assert (found.status, found.error) == ("corrupt", reason)
        assert isolated.decode(encoded("PNG"), hasty).status == "ok"


def test_in_a_dataset_too(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 16, 16, 3), np.uint8))
    slow = b"P3 1700 1700 255 " + b"1 " * (3 * 1700 * 1700)
    pictures = [(0, encoded("PNG")), (1, slow), (2, encoded("JPEG"))]
    with DecoderPool(tmp_path / "images.npy", Hasty(16, "pad", 0, 20_000_000, 4_000_000), 2) as pool:
        found = list(pool.decode(pictures))
    assert [one.status for one in found] == ["ok", "corrupt", "ok"]
    assert found[1].error == "the decoder process died, or worked for 1 CPU seconds"
