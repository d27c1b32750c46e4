"""Checkpoints that are whole: each is sealed with checksums once written, and checked before a run goes on from it."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from smar.core.errors import InputError
from smar.core.files import sha256, write_json
from smar.core.progress import bar, console
from smar.training.distributed import barrier, rank, total

SEAL = "seal.json"


@dataclass(frozen=True)
class Spent:
    """Seconds trained so far: of the clock, and of all cores and processes."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


def seal(checkpoint: Path, spent: Spent) -> None:
    """Write ``seal.json``: checksums of every file, and the seconds trained so far."""
    files = {path.name: sha256(path) for path in sorted(checkpoint.iterdir()) if path.name != SEAL}
    write_json(checkpoint / SEAL, {"seconds": spent.seconds, "cpu_seconds": spent.cpu_seconds, "files": files})


def latest(folder: Path) -> tuple[Path, Spent] | None:
    """Newest sealed checkpoint and its seconds; unsealed ones (killed while saving) are removed, saying so.

    Raises:
        InputError: a sealed checkpoint's file is missing or damaged.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for checkpoint in found:
        if not (checkpoint / SEAL).is_file():
            console.print(
                f"{checkpoint} was not finished when the run was stopped; going on from the one before.",
                markup=False,
                soft_wrap=True,
            )
            shutil.rmtree(checkpoint)
            continue
        record = _read_seal(checkpoint)
        for name, digest in record["files"].items():
            path = checkpoint / name
            if not path.is_file() or sha256(path) != digest:
                fault = "differs from its checksum" if path.is_file() else "is missing"
                raise InputError(
                    f"checkpoint {checkpoint} is corrupt: {name} {fault}. Delete {checkpoint} to go on from the one "
                    f"before it, or {folder} to start this stage again."
                )
        return checkpoint, Spent(float(record["seconds"]), float(record.get("cpu_seconds", 0.0)))
    return None


def _read_seal(checkpoint: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"checkpoint {checkpoint} is corrupt: {SEAL} cannot be read ({error}). Delete {checkpoint} to go on from "
            f"the one before it, or {checkpoint.parent} to start this stage again."
        ) from None
    return record


class StageCallback(TrainerCallback):  # type: ignore[misc]
    """Progress bar, training clock and checkpoint seals of one stage."""

    def __init__(self, label: str, before: Spent) -> None:
        self.label, self.before = label, before
        self.started, self.started_cpu = time.perf_counter(), time.process_time()
        self.progress = bar()
        self.task = self.progress.add_task(label)

    def spent(self) -> Spent:
        """Seconds trained, earlier sittings included. Every process must ask."""
        cpu = total(time.process_time() - self.started_cpu)
        return Spent(self.before.seconds + time.perf_counter() - self.started, self.before.cpu_seconds + cpu)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start clock and bar."""
        self.started, self.started_cpu = time.perf_counter(), time.process_time()
        self.progress.start()
        self.progress.update(self.task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the loss."""
        if logs and "loss" in logs:
            self.progress.update(self.task, description=f"{self.label} loss {logs['loss']:.3f}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seal the checkpoint just written, once every process has added its random state."""
        spent = self.spent()
        barrier()
        if rank() == 0:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", spent)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the bar."""
        self.progress.stop()
