"""How a checkpoint's own image processor makes a square of a picture, in the words of `smar prepare`."""

from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image
from transformers import AutoImageProcessor

from smar.core.errors import InputError
from smar.core.sections.data import DataSettings, Fit, Resample
from smar.data.images import fit_square
from smar.model.checkpoint import pinned


@dataclass(frozen=True)
class Framing:
    """Side of the square, fit and filter; `fit` is None where the processor does something else, such as a zoom."""

    size: int
    fit: str | None
    resample: str

    def assignments(self) -> list[str]:
        """The settings of `smar prepare` that give the processor's own squares, as far as there are such."""
        fit = [] if self.fit is None else [f"data.image_fit={self.fit}"]
        return [f"data.image_size={self.size}", *fit, f"data.image_resample={self.resample}"]

    def note(self, name: str, data: DataSettings) -> str | None:
        """What differs where a dataset was prepared with `data`; None where its squares are the processor's own."""
        if self.fit is None:
            return (
                f"the image processor of {name} frames pictures that are no squares as no data.image_fit does "
                f"({self.resample}); they were packed by {data.image_fit}, {_filter(data)}"
            )
        if (self.fit, self.resample) == (data.image_fit, data.image_resample):
            return None
        return (
            f"pictures were packed by {data.image_fit}, {_filter(data)}, the encoder learned from {self.fit}, "
            f"{self.resample}: smar prepare --pictures-for {name}"
        )


def _filter(data: DataSettings) -> str:
    return data.image_resample or "bicubic in cheap steps"


def load_image_processor(name: str) -> Any:
    """A checkpoint's own image processor, by PIL (torchvision is not needed).

    Raises:
        InputError: there is none, or it cannot be loaded.
    """
    source, revision = pinned(name)
    try:
        return AutoImageProcessor.from_pretrained(source, revision=revision, backend="pil", trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"the image processor of {name} cannot be loaded: {error}") from None


def read_framing(name: str) -> Framing:
    """The framing of a checkpoint's image processor, found out by what it makes of two pictures.

    Raises:
        InputError: it has no image processor.
    """
    processor = load_image_processor(name)

    def seen(image: Image.Image) -> npt.NDArray[np.float64]:
        return np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0], np.float64)

    first = seen(Image.new("RGB", (64, 64)))
    if first.ndim == 2:  # patches instead of a picture
        side = round(len(first) ** 0.5) * round((first.shape[1] / 3) ** 0.5)
        return Framing(side, None, _named(processor))
    size = first.shape[-1]
    rng = np.random.default_rng(0)
    sides = (size + size // 3 + 1, 2 * size + 7)
    pictures = [Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)) for shape in (sides, sides[::-1])]
    wanted = [seen(picture) for picture in pictures]
    for fit, resample in product(get_args(Fit), get_args(Resample)):
        squares = (Image.fromarray(fit_square(picture, size, fit, resample)) for picture in pictures)
        # a square of the right size passes the processor as it is
        if all(np.allclose(seen(a), b, atol=1e-3) for a, b in zip(squares, wanted, strict=True)):
            return Framing(size, fit, resample)
    return Framing(size, None, _named(processor))


def _named(processor: Any) -> str:
    return Image.Resampling(getattr(processor, "resample", None) or Image.Resampling.BILINEAR).name.lower()
