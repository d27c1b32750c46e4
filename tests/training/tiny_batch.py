"""A tiny model, its processor and a random batch: what the tests of encoding in shares need."""

from typing import Any

import torch

from smar.core.sections.training import LossWeights
from smar.core.settings import load_settings
from smar.model.modeling import SmarModel
from smar.model.processing import SmarProcessor, build_processor
from smar.model.start import new_model
from smar.training.stage_losses import stage_losses

WORDS = ["red dress", "blue shirt", "green hat"]
WEIGHTS = LossWeights(text=1, image=0.5, multimodal=1, adaptive=1, gate=0.2)


def tiny(*assignments: str, seed: int = 0) -> tuple[SmarModel, SmarProcessor]:
    """A fresh model in training mode; a `vit`, whose towers treat every example alone, unless told otherwise."""
    towers = [
        f"model.{name}.{key}" for name in ("query", "text", "vision") for key in ("layers=1", "hidden=16", "heads=2")
    ]
    base = ["data.image_size=16", "model.dim=8", "model.vision.kind=vit", "model.vocabulary=200", *towers]
    settings = load_settings(None, [*base, *assignments])
    processor = build_processor(settings.model, 16, WORDS)
    torch.manual_seed(seed)
    return new_model(settings, settings.model, processor).train(), processor


def batch_of(queries: int, items: int, pictures: torch.Tensor, pairs: int = 24) -> dict[str, Any]:
    """A batch whose items show a picture where `pictures` [items] holds."""
    draw = torch.Generator().manual_seed(1)

    def tokens(n: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.arange(length) < torch.randint(2, length + 1, (n, 1), generator=draw)
        return torch.randint(5, 30, (n, length), generator=draw), mask.long()

    shown = int(pictures.sum())
    target = torch.randint(items, (pairs,), generator=draw)
    blocked = torch.rand(pairs, items, generator=draw) < 0.1
    blocked[torch.arange(pairs), target] = False
    query_ids, query_mask = tokens(queries, 6)
    item_ids, item_mask = tokens(items, 9)
    return {
        "query_ids": query_ids,
        "query_mask": query_mask,
        "item_ids": item_ids,
        "item_mask": item_mask,
        "pixels": torch.randint(256, (shown, 16, 16, 3), generator=draw, dtype=torch.uint8) if shown else None,
        "has_image": pictures,
        "query_of_pair": torch.randint(queries, (pairs,), generator=draw),
        "target": target,
        "blocked": blocked,
        "weight": torch.rand(pairs, generator=draw),
    }


def loss_of(query: Any, item: Any, batch: dict[str, Any]) -> torch.Tensor:
    losses = stage_losses(WEIGHTS, query, item, batch, 0.1)
    return torch.stack([getattr(WEIGHTS, name) * value for name, value in losses.items()]).sum()


def gradients(model: SmarModel) -> dict[str, torch.Tensor]:
    """Gradient of every parameter that has one, taken away from the model."""
    out = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return out


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Largest difference, as a share of the largest number."""
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first) / max(
        float(value.abs().max()) for value in first.values()
    )
