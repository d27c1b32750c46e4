"""Pictures as a Python program has them: PIL pictures, bytes, arrays, paths, or none."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from smar.core.errors import InputError
from smar.data.images import ImageOptions, decode, square

Picture: TypeAlias = Image.Image | bytes | str | Path | npt.NDArray[np.uint8] | None
"""A PIL picture, the bytes of a file, a path, an array uint8 [h, w], [h, w, 3] or [h, w, 4], or None for none."""
_ALLOWED = "a PIL picture, bytes, a path, an array uint8 [height, width, 3], or None for an item without one"


def squares(given: "Picture | list[Picture] | tuple[Picture, ...]", options: ImageOptions, where: str) -> Any:
    """The pictures of one item as the model sees them: a list of uint8 [s, s, 3], empty where it has none.

    Args:
        given: a picture, or several.
        options: how a picture becomes a square.
        where: names the item in messages.

    Raises:
        InputError: something is no picture, or one that cannot be used.
    """
    several = given if isinstance(given, list | tuple) else [given]
    return [_square(picture, options, where) for picture in several if not _missing(picture)]


def _missing(picture: object) -> bool:
    return picture is None or (isinstance(picture, float) and picture != picture)  # what pandas has for none


def _square(picture: Picture, options: ImageOptions, where: str) -> npt.NDArray[np.uint8]:
    if isinstance(picture, str) and "://" in picture:
        raise InputError(f"{where}: {picture[:100]!r} is an address; download it, and give its bytes or a path.")
    if isinstance(picture, str | Path | bytes | bytearray | memoryview):
        found = decode(Path(picture) if isinstance(picture, str | Path) else bytes(picture), options)
        if found.packed is None:
            named = f" {picture}" if isinstance(picture, str | Path) else ""
            raise InputError(f"{where}: the picture{named} cannot be used: {found.status} ({found.error}).")
        return found.packed
    try:
        image = picture if isinstance(picture, Image.Image) else _of_array(picture)
        return square(image, options)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{where}: {error}") from None


def _of_array(array: object) -> Image.Image:
    if not isinstance(array, np.ndarray):
        kind = f"{type(array).__module__}.{type(array).__qualname__}"
        raise ValueError(f"a {kind} is no picture; allowed: {_ALLOWED}.")
    colours = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not colours or not array.size:
        raise ValueError(f"the picture is {array.dtype} {list(array.shape)}; allowed: {_ALLOWED}.")
    return Image.fromarray(array)
