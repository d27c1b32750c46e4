"""Pairs per second of the training step against a plain fp32 loop over the same model, in the same run.

    python benchmarks/training.py [--dataset DATASET] [--batch 256] [--steps 12]

The plain loop is what one writes first: float32, every pair's query and item encoded as they come, the library's
default attention, default AdamW. Ours: bfloat16, where the processor calculates in it, with the attention that suits
it, every distinct query, item and picture of the batch once, fused AdamW. Both see the same pairs, losses and picture
sizes; steps alternate, so that a
busy machine slows both, and the ratio is the median of the step-by-step ratios.
"""

import argparse
import copy
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from smar.core.settings import Settings, load_settings
from smar.data.dataset import Dataset
from smar.data.prepare import prepare
from smar.demo.shop import generate_shop
from smar.model.device import CPU, knows_bf16
from smar.model.modeling import SmarModel
from smar.model.start import new_model
from smar.training.batches import Collator
from smar.training.jobs import jobs
from smar.training.setup import TrainingData, new_processor
from smar.training.stage_losses import stage_losses
from smar.training.train import optimizer


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dataset", type=Path, help="a prepared dataset; a generated shop when not given")
    options.add_argument("--config", type=Path)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--threads", type=int, default=2)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset.open(chosen.dataset or generated(Path(folder)))
        settings = load_settings(chosen.config, data=dataset.manifest.settings)
        data = TrainingData.from_dataset(dataset, settings.data.text_fields)
        measure(settings, data, chosen.batch, chosen.steps)


def generated(folder: Path) -> Path:
    generate_shop(folder / "shop", searches=20_000)
    tables = [str(folder / "shop" / f"{name}.parquet") for name in ("items", "clicks")]
    prepare(Settings().data, [tables[0]], [tables[1]], [], [], None, folder / "dataset")
    return folder / "dataset"


def measure(settings: Settings, data: TrainingData, batch: int, steps: int) -> None:
    job = jobs(settings, Path("unused"))[0]
    stage = job.stages["stage1"]
    processor = new_processor(settings, data)
    torch.manual_seed(0)
    ours = new_model(settings, job.model, processor).train()
    collate = data.collator(processor, ours.config)
    plain = SmarModel._from_config(copy.deepcopy(ours.config), attn_implementation=default_attention(ours)).train()
    plain.load_state_dict(ours.state_dict())
    optimizers = optimizer(ours, job, stage), torch.optim.AdamW(plain.parameters(), lr=stage.learning_rate)
    rng, times, spent = np.random.default_rng(0), ([], []), []
    for step in range(steps + 2):
        indices = rng.choice(len(data.pairs), min(batch, len(data.pairs)), replace=False).tolist()
        for run in (ours_step, plain_step) if step % 2 else (plain_step, ours_step):
            is_ours = run is ours_step
            started, before = time.perf_counter(), time.process_time()
            loss = run((ours if is_ours else plain), collate, indices, processor, stage.weights)
            loss.backward()
            optimizers[0 if is_ours else 1].step()
            (ours if is_ours else plain).zero_grad(set_to_none=True)
            if step >= 2:
                times[0 if is_ours else 1].append(time.perf_counter() - started)
                spent += [time.process_time() - before] * is_ours
    report(times, batch)
    print(f"smar, a CPU second {batch / statistics.median(spent):8.0f} pairs")


def default_attention(model: SmarModel) -> dict[str, str]:
    """The fused kernel wherever the encoder has attention at all."""
    convolutional = model.config.vision_config.model_type == "resnet"
    vision = "eager" if convolutional else "sdpa"
    return {"": "sdpa", "query_config": "sdpa", "text_config": "sdpa", "vision_config": vision}


def ours_step(model, collate: Collator, indices, processor, weights) -> torch.Tensor:
    batch = collate(indices)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=knows_bf16(CPU)):
        return loss_of(model, batch, processor, weights)


def plain_step(model, collate: Collator, indices, processor, weights) -> torch.Tensor:
    return loss_of(model, expand(collate(indices)), processor, weights)


def expand(batch: dict) -> dict:
    """One row per pair again: what a loop without de-duplication encodes; candidates are the pairs' own items."""
    rows, target = batch["query_of_pair"], batch["target"]
    shown = batch["has_image"][target]
    position = batch["has_image"].long().cumsum(0) - 1
    pairs = torch.arange(len(rows))
    same = batch["blocked"][:, target] | (target[:, None] == target[None, :])
    same[pairs, pairs] = False
    return {
        **{name: batch[name][rows] for name in ("query_ids", "query_mask")},
        **{name: batch[name][target] for name in ("item_ids", "item_mask")},
        "pixels": None if batch["pixels"] is None else batch["pixels"][position[target[shown]]],
        "has_image": shown,
        "query_of_pair": pairs,
        "target": pairs,
        "blocked": same,
        "weight": batch["weight"],
    }


def loss_of(model, batch: dict, processor, weights) -> torch.Tensor:
    if batch["pixels"] is not None:
        batch = {**batch, "pixels": processor.pixels(batch["pixels"])}
    query, item = model(batch)
    losses = stage_losses(weights, query, item, batch, model.config.temperature)
    return torch.stack([getattr(weights, name) * value for name, value in losses.items()]).sum()


def report(times: tuple[list[float], list[float]], batch: int) -> None:
    ours, plain = (batch / statistics.median(values) for values in times)
    ratio = statistics.median(slow / fast for fast, slow in zip(*times, strict=True))
    threads, where = torch.get_num_threads(), platform.processor() or platform.machine()
    print(f"batch {batch}, {len(times[0])} alternating steps, {threads} threads, {where}, torch {torch.__version__}")
    print(f"smar training step {ours:8.0f} pairs/s")
    print(f"plain fp32 loop    {plain:8.0f} pairs/s")
    print(f"ratio              {ratio:8.2f} (median of step-by-step ratios; target 1.5)")


if __name__ == "__main__":
    main()
