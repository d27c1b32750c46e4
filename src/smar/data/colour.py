"""Colours as a screen shows them: any mode of Pillow, with or without a colour profile, to 8-bit sRGB.

Most catalogue pictures carry an sRGB profile. Whether a profile is one is measured, not read off its name: what
LittleCMS would change of a grid of colours decides, once for each profile that comes up.
"""

import hashlib
import io
from collections.abc import Callable
from threading import Lock

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray
from PIL import Image, ImageCms

_SAME = 2
"""Of 255: a profile that moves no colour further is sRGB; the many editions of sRGB differ by less."""
_SAME_GAMMA = 0.02
"""PNGs of sRGB pixels state a gamma of 1 / 2.2."""
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour space of a profile -> mode of Pillow that holds its colours."""
_GREY = ("1", "L", "LA", "La", "I", "F")


class Unreadable(ValueError):
    """A colour profile that is damaged, or that is of another kind than its picture."""


def to_rgb(image: Image.Image) -> tuple[Image.Image, bool, str]:
    """Convert any mode to sRGB: transparency on white, 16 bits and floats scaled to 8, the picture's profile applied.

    Returns:
        The picture; whether its profile moved colours; and why its profile could not be used ("" where it could, or
        where there is none): its numbers are then taken for sRGB.
    """
    convert, problem = None, ""
    try:
        convert = _conversion_of(image)
    except Unreadable as error:
        problem = str(error)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_eight_bits(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        if convert is not None:
            alpha = coloured.getchannel("A")
            coloured = convert(coloured.convert("RGB"))
            coloured.putalpha(alpha)
        white = Image.new("RGBA", coloured.size, "white")
        shown = Image.alpha_composite(white, coloured).convert("RGB")
    else:
        shown = image.convert("RGB") if convert is None else convert(image)
    return shown, convert is not None, problem


def _conversion_of(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """How pixels of a picture, of this or another mode, become sRGB; None where they are. Raises Unreadable."""
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
    if isinstance(profile, bytes) and profile:
        mode, transform = _transform(profile)
        own = "CMYK" if image.mode == "CMYK" else "L" if image.mode.startswith("I;") or image.mode in _GREY else "RGB"
        if mode != own and not (mode == "RGB" and own == "L"):  # grey is a colour, too
            raise Unreadable(f"colour profile for {mode} in a picture in {image.mode}")
        return None if transform is None else lambda pixels: transform.apply(pixels.convert(mode))
    if isinstance(gamma, float) and gamma > 0 and "srgb" not in image.info and abs(gamma * 2.2 - 1) > _SAME_GAMMA:
        return lambda pixels: pixels.convert("RGB").point(_curve(gamma) * 3)
    return None


def _curve(gamma: float) -> list[int]:
    """The sRGB value of each value of a PNG with a gAMA chunk, [256]."""
    light = (np.arange(256) / 255) ** (1 / gamma)
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * value).round().astype(int).tolist()  # type: ignore[no-any-return]


@cached(LRUCache(64), key=lambda profile: hashlib.sha256(profile).digest(), lock=Lock())
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode that a profile is for, and its transform to sRGB, None where that changes nothing visible.

    Relative colorimetric with black point compensation, as image editors convert by default.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(source.profile.xcolor_space.strip(), "")
        if not mode:
            raise Unreadable(f"colour profile for {source.profile.xcolor_space.strip()}")
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise error if isinstance(error, Unreadable) else Unreadable("damaged colour profile") from None
    return mode, None if _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    if transform.input_mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    if transform.input_mode == "L":
        before = Image.fromarray(levels[None])
    else:
        before = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 18, 3))
    after = np.asarray(transform.apply(before), np.int16)
    return bool(np.abs(after - np.asarray(before.convert("RGB"), np.int16)).max() <= _SAME)


def _to_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Scale deep grey [h, w] to uint8; I and F declare no range, so it is read off the values."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = values.max()
    if image.mode.startswith("I;16"):
        limit = 65535.0
    elif image.mode == "F" and top <= 1:
        limit = 1.0
    else:
        limit = 255.0 if top <= 255 else 65535.0 if top <= 65535 else float(top)
    return np.asarray(np.clip(values / limit * 255.0, 0, 255).round(), dtype=np.uint8)
