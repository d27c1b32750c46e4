"""Peak memory and CPU time of a training step: a plain batch, a small one, and the large one with gradient caching.

    python benchmarks/gradient_cache.py [--batch 4096] [--small 256] [--micro 64] [--steps 2]

Every case runs in a process of its own on one thread with the default model on a generated shop, in bfloat16. Memory
is the most that the process holds, mapped files left out, less what it holds before its first step (libraries, model,
tokens).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import psutil
import torch

from smar.core.settings import Settings, load_settings
from smar.data.dataset import Dataset
from smar.data.prepare import prepare
from smar.demo.shop import generate_shop
from smar.model.start import new_model
from smar.training.encode_batch import encode_batch
from smar.training.jobs import jobs
from smar.training.setup import TrainingData, new_processor
from smar.training.stage_losses import PART, stage_losses
from smar.training.train import optimizer


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--batch", type=int, default=4096)
    options.add_argument("--small", type=int, default=256)
    options.add_argument("--micro", type=int, default=64)
    options.add_argument("--steps", type=int, default=2)
    options.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.case:
        folder, batch, micro = chosen.case
        print(json.dumps(case(Path(folder), int(batch), int(micro) or None, chosen.steps)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_shop(folder / "shop", items=6000, searches=30_000)
        tables = [str(folder / "shop" / f"{table}.parquet") for table in ("items", "clicks")]
        prepare(Settings().data, [tables[0]], [tables[1]], [], [], None, folder / "dataset")
        rows = [(chosen.small, 0), (chosen.batch, 0), (chosen.batch, chosen.micro)]
        found = [measured(folder / "dataset", batch, micro, chosen.steps) for batch, micro in rows]
    print(f"{'batch':>6} {'parts of':>9} {'items':>6} {'peak MiB':>9} {'CPU s/step':>11}")
    for (batch, micro), row in zip(rows, found, strict=True):
        print(f"{batch:6} {micro or '-':>9} {row['items']:6} {row['mib']:9.0f} {row['seconds']:11.2f}")
    small, plain, cached = found
    print(
        f"memory {cached['mib'] / plain['mib']:.2f} of the plain step, {cached['mib'] / small['mib']:.2f} of the small "
        f"one; time {cached['seconds'] / plain['seconds']:.2f} of the plain step"
    )


def measured(dataset: Path, batch: int, micro: int, steps: int) -> dict[str, float]:
    words = [sys.executable, __file__, "--steps", steps, "--case", dataset, batch, micro]
    out = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def case(path: Path, size: int, micro: int | None, steps: int) -> dict[str, float]:
    torch.set_num_threads(1)
    dataset = Dataset.open(path)
    settings = load_settings(data=dataset.manifest.settings)
    data = TrainingData.from_dataset(dataset, settings.data.text_fields)
    job, processor = jobs(settings, Path("unused"))[0], new_processor(settings, data)
    stage, collate = job.stages["stage2"], data.collator(processor, job.model)
    model = new_model(settings, job.model, processor).train()
    rule, rng = optimizer(model, job, stage), np.random.default_rng(0)
    before, spent = anonymous(), []
    peak = Peak()
    peak.start()
    for _ in range(steps):
        batch = collate(rng.choice(len(data.pairs), size, replace=False))
        started = time.process_time()
        query, item = encode_batch(model, batch, micro, lambda own: own, partial(encode, model, processor))
        losses = stage_losses(stage.weights, query, item, batch, model.config.temperature, part=PART if micro else None)
        torch.stack([getattr(stage.weights, name) * value for name, value in losses.items()]).sum().backward()
        rule.step()
        model.zero_grad(set_to_none=True)
        spent.append(time.process_time() - started)
    return {"mib": peak.stop() - before, "seconds": min(spent), "items": len(batch["item_ids"])}


def encode(model, processor, part):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model({**part, "pixels": None if part["pixels"] is None else processor.pixels(part["pixels"])})


def anonymous() -> float:
    """MiB in memory that belong to no file: pictures are mapped, and stay while there is room."""
    seen = psutil.Process().memory_info()
    return (seen.rss - seen.shared) / 2**20


class Peak(threading.Thread):
    """The most that `anonymous` returns from start to stop, seen every 2 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib, self._end = 0.0, threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.002):
            self.mib = max(self.mib, anonymous())

    def stop(self) -> float:
        self._end.set()
        self.join()
        return self.mib


if __name__ == "__main__":
    main()
