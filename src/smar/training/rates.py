"""How fast each weight learns: fresh ones at the stage's rate, pretrained ones gently, first layers most gently."""

import torch
from torch import nn

from smar.core.sections.model import TowerSettings
from smar.core.sections.training import Schedule
from smar.model.bag import BagModel
from smar.model.layers import depths
from smar.model.towers import Tower
from smar.training.jobs import Job

_TABLE = 8.0
"""How much faster a bag's vectors learn than other fresh weights: most batches do not hold a given token."""


def optimizer(model: nn.Module, job: Job, stage: Schedule) -> torch.optim.AdamW:
    """Fused AdamW: an encoder may have a rate of its own, pretrained ones do; vectors and norms do not decay."""
    towers = job.model.towers
    rates: dict[nn.Parameter, float] = {}
    for name, tower in model.named_children():
        if isinstance(tower, Tower) and name in towers:
            rates |= _rates(tower, towers[name], stage)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = stage.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rates.get(parameter, stage.learning_rate), decay), []).append(parameter)
    parameters = [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
    return torch.optim.AdamW(parameters, fused=True)


def _rates(tower: Tower, settings: TowerSettings, stage: Schedule) -> dict[nn.Parameter, float]:
    """Highest rate of each parameter of a tower's encoder, and of a projection that came with it."""
    gentle = settings.pretrained and not settings.lora  # adapters are fresh weights
    rate = settings.learning_rate or (stage.pretrained_learning_rate if gentle else stage.learning_rate)
    deepest = depths(tower.encoder)
    top = max(deepest.values(), default=0)
    out = {parameter: rate * settings.layer_decay ** (top - depth) for parameter, depth in deepest.items()}
    if isinstance(tower.encoder, BagModel) and not settings.learning_rate:
        out |= dict.fromkeys(tower.encoder.embeddings.parameters(), _TABLE * rate)
    if settings.pretrained and tower.head.kept:
        out |= dict.fromkeys(tower.projection.parameters(), settings.learning_rate or stage.pretrained_learning_rate)
    return out
