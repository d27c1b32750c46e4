"""Patch states of every picture, made once by a frozen image encoder: a training step then reads them from disk.

RUN/patches/states.npy      float16 [pictures, p, h], rows as in the dataset's images.npy, read through a memory map
RUN/patches/manifest.json   what they were made of: encoder weights, dataset, normalisation, precision

They are made in the precision that training runs in, so they are what the encoder would have said. The model is saved
with its encoder, and everything after training encodes pixels.
"""

import shutil
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap

from smar.core.errors import InputError
from smar.core.files import Manifest, atomic
from smar.core.progress import track
from smar.data.dataset import Dataset
from smar.model.device import knows_bf16
from smar.model.modeling import SmarModel
from smar.model.processing import SmarProcessor
from smar.model.start import weights_digest

States: TypeAlias = np.memmap[tuple[int, ...], np.dtype[np.float16]]
BATCH = 256
"""Pictures encoded at once."""
WHOLE = "Set train.pictures.precompute=false to run the encoder in every step"


class PatchManifest(Manifest):
    """``RUN/patches/manifest.json``."""

    encoder: str
    """SHA-256 of the encoder's weights."""
    dataset: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bf16: bool
    pooling: str = ""
    """Of the tower: the encoder's own pooled state comes before its patches."""
    size: int
    """Bytes of states.npy."""


def patch_states(run: Path, dataset: Dataset, model: SmarModel, processor: SmarProcessor, bf16: bool) -> States:
    """The states of all pictures float16 [pictures, p, h], memory-mapped; those of another encoder are replaced.

    Raises:
        InputError: the disk is too small, or a state does not fit into float16.
    """
    folder, normal = run / "patches", processor.image_processor
    file = folder / "states.npy"
    wanted = PatchManifest(
        encoder=weights_digest(model.image_tower.encoder),
        dataset=dataset.digest,
        mean=tuple(normal.image_mean),
        std=tuple(normal.image_std),
        bf16=bf16 and knows_bf16(model.device),
        pooling="pooler" if model.image_tower.head.pooling == "pooler" else "",
        size=file.stat().st_size if file.is_file() else 0,
    )
    if not (folder / "manifest.json").is_file() or PatchManifest.read(folder, "smar train") != wanted:
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)
        with atomic(file) as partial:
            _write(partial, dataset.images, model, processor, bf16)
        wanted.model_copy(update={"size": file.stat().st_size}).write(folder)
    states: States = np.load(file, mmap_mode="r")
    return states


@torch.inference_mode()
def _write(path: Path, images: npt.NDArray[np.uint8], model: SmarModel, processor: SmarProcessor, bf16: bool) -> None:
    device: torch.device = model.device
    tower = model.image_tower.eval()
    out: States | None = None
    for start in track(range(0, len(images), BATCH), "patch states"):
        pixels = processor.pixels(torch.from_numpy(np.array(images[start : start + BATCH])).to(device))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16 and knows_bf16(device)):
            states = tower.patches(pixels).half().cpu().numpy()
        if not np.isfinite(states).all():
            raise InputError(f"the image encoder's states do not fit into float16. {WHOLE}.")
        if out is None:
            _check_space(path, len(images) * states[0].nbytes)
            out = open_memmap(path, "w+", np.float16, (len(images), *states.shape[1:]))
        out[start : start + len(states)] = states
    if out is not None:
        out.flush()


def _check_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise InputError(
            f"the patch states need {size / 1e9:.1f} GB, and {path.parent} has {free / 1e9:.1f} GB left: free some, "
            f"or choose another --out. {WHOLE}."
        )
