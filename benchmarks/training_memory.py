"""Peak memory and CPU seconds of `smar train`, as the process is seen from outside and as its summary says.

    python benchmarks/training_memory.py DATASET [--batch 512 4096] [--steps 10] [--config FILE] [--set KEY=VALUE ...]

Every batch size is a run of its own, of the main model alone, in a folder that is removed: so many steps of each stage
that the configuration has, with validation at its end. Mapped files are left out
(`smar.core.processes.anonymous_bytes`).
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dataset", type=Path)
    options.add_argument("--batch", type=int, nargs="+", default=[512, 4096])
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--config", type=Path)
    options.add_argument("--set", action="append", default=[], dest="assignments")
    chosen = options.parse_args()
    print(f"{'batch':>6} {'peak MB':>8} {'summary says':>12} {'CPU s':>7}")
    for batch in chosen.batch:
        stages = ["stage1", "stage2"]
        if chosen.config is not None and "stage0" in chosen.config.read_text(encoding="utf-8"):
            stages.append("stage0")
        sets = [f"train.{stage}.{key}" for stage in stages for key in (f"batch_size={batch}", f"steps={chosen.steps}")]
        sets += ["train.baselines=[]", "train.threads=1", *chosen.assignments]
        with tempfile.TemporaryDirectory() as folder:
            words = ["train", chosen.dataset, "--out", Path(folder) / "run"]
            words += [] if chosen.config is None else ["--config", chosen.config]
            peak, said, seconds = measured([*words, *(word for text in sets for word in ("--set", text))])
        print(f"{batch:6} {peak / 1e6:8,.0f} {said:>12} {seconds:7.1f}", flush=True)


def measured(words: list[object]) -> tuple[int, str, float]:
    """The most anonymous memory seen, what the summary says, and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as text:
        process = subprocess.Popen([sys.executable, "-m", "smar", *map(str, words)], stderr=text)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(0.005)
        text.seek(0)
        shown = text.read()
    if process.returncode:
        raise SystemExit(shown)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = re.search(r"peak memory +([\d,]+ MB)", shown)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return peak, said[1] if said else "-", spent


def anonymous(pid: int) -> int:
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):  # it has just ended
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
