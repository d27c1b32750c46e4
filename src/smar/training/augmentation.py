"""What a batch's items show in one step: pictures flipped and moved.

All draws are from torch's own generator in the training step, whose state is part of a checkpoint: a run that goes on
draws what it would have drawn.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from smar.core.sections.training import PictureSettings
from smar.model.processing import SmarProcessor

SMALLEST_ZOOM = 0.8
"""Side of the smallest part of a picture that augmentation shows."""


def picture_input(raw: Tensor, processor: SmarProcessor, augment: bool) -> Tensor:
    """What the image tower takes.

    Args:
        raw: packed pictures uint8 [m, s, s, 3], or precomputed patch states float16 [m, p, h].
        processor: normalises pictures.
        augment: move the pictures; patch states are fixed.

    Returns:
        Pixels float32 [m, 3, s, s], or the patch states in float32.
    """
    if raw.dim() == 3:
        return raw.float()
    pixels = processor.pixels(raw)
    return flip_and_move(pixels) if augment else pixels


def flip_and_move(pixels: Tensor) -> Tensor:
    """Show a random square part of each picture at full size, every second one mirrored; colours stay as they are.

    Pixels [m, c, s, s] -> the same shape. The part is 0.8 to 1 of the side wide and lies inside the picture.
    """
    m = len(pixels)
    zoom = SMALLEST_ZOOM + (1 - SMALLEST_ZOOM) * torch.rand(m, device=pixels.device)
    shift = (2 * torch.rand(2, m, device=pixels.device) - 1) * (1 - zoom)
    sign = 1 - 2 * torch.randint(0, 2, (m,), device=pixels.device)
    zero = torch.zeros_like(zoom)
    rows = torch.stack([sign * zoom, zero, shift[0], zero, zoom, shift[1]], 1).view(m, 2, 3)
    grid = functional.affine_grid(rows, list(pixels.shape), align_corners=False)
    moved = functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)


def vary(batch: dict[str, Any], settings: PictureSettings, processor: SmarProcessor) -> dict[str, Any]:
    """The batch (see `smar.training.batches.Collator`) as one step sees it: its `pixels` ready for the tower."""
    if batch["pixels"] is None:
        return batch
    return {**batch, "pixels": picture_input(batch["pixels"], processor, settings.augment)}
