"""What a large shop takes: rates measured here, and machines, hours, bytes and cost derived from them.

    python benchmarks/cost.py [--rates rates.json] [--items 100000000] [--rows 1000000000] [--price 0.04]

Measured, one after the other, by CPU seconds, so that other work of the machine counts little: `smar prepare` on a
generated log of four million rows and on the pictures of a generated shop, encoding of its items by the default model
(random weights cost what trained ones do), training steps, and `smar index` over a million generated vectors of
2 x 128. What two cores do in a second is twice what a CPU second does. With --rates a file of an earlier run is taken
instead; --save writes one. The table is derived: it scales the rates by cores and by --efficiency, and was run nowhere.
"""

import argparse
import json
import math
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

CORES = 2
HERE = Path(__file__).parent
PICTURED, ENCODED, INDEXED = 3_000, 512, 1_000_000


def script(name: str, *words: str) -> str:
    command = [sys.executable, str(HERE / name), *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def number(pattern: str, text: str) -> float:
    return float(re.search(pattern, text).group(1).replace(",", ""))


def measured() -> dict[str, float]:
    """Units a second of both cores together, and bytes of an item."""
    told = script("prepare.py", "--rows", "4000000")
    rates = {"log rows": CORES * number(r"log rows +([\d,]+)", told) / number(r"CPU s +([\d.]+)", told)}
    print(f"log rows {rates['log rows']:,.0f}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="smar-cost-") as folder:
        rates |= shop_rates(Path(folder))
        print(rates, file=sys.stderr)
        rates["training pairs"] = CORES * number(r"CPU second +([\d.]+)", script("training.py", "--steps", "8"))
        rates |= index_rates(Path(folder))
    return rates


def spent() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def shop_rates(folder: Path) -> dict[str, float]:
    """Pictures, and items by words alone and with a picture each."""
    import torch

    from smar.core.settings import load_settings
    from smar.data.dataset import Dataset
    from smar.data.prepare import prepare, prepare_pictures
    from smar.demo.shop import generate_shop
    from smar.model.encoder import Encoder
    from smar.model.start import new_model
    from smar.runners.run import Part
    from smar.training.jobs import jobs
    from smar.training.setup import TrainingData, new_processor

    torch.set_num_threads(CORES)
    generate_shop(folder / "shop", PICTURED, 5_000)
    settings = load_settings(None, [f"data.workers={CORES}"])
    tables = [[str(folder / "shop" / f"{name}.parquet")] for name in ("items", "clicks")]
    before = spent()
    prepare_pictures(settings.data, Part(1, 1), *tables, [], [], folder / "dataset")
    rates = {"pictures": CORES * PICTURED / (spent() - before)}
    prepare(settings.data, *tables, [], [], None, folder / "dataset")
    dataset = Dataset.open(folder / "dataset")
    rates["bytes of packed pictures"] = (folder / "dataset" / "images.npy").stat().st_size / PICTURED
    data = TrainingData.from_dataset(dataset, settings.data.text_fields)
    for job in jobs(settings, folder):
        name = {"smar": "items with pictures", "dpsr": "items by words"}.get(job.model.kind)
        if name is not None:
            processor = new_processor(settings, data, job.model)
            encoder = Encoder(new_model(settings, job.model, processor), processor, bf16=settings.train.bf16)
            fields = [field[:ENCODED] for field in dataset.fields(tuple(encoder.config.text_fields))]
            times = []
            for _ in range(2):  # the first allocates
                before = spent()
                list(encoder.encode_items(fields, dataset.images, dataset.image_row[:ENCODED]))
                times.append(spent() - before)
            rates[name] = CORES * ENCODED / times[-1]
    return rates


def index_rates(folder: Path) -> dict[str, float]:
    from parts.built import build

    built = build(folder, INDEXED, 2_000)
    size = {
        name: sum(path.stat().st_size for path in one.rglob("*"))
        for name, one in vars(built).items()
        if name in ("embeddings", "index")
    }
    return {
        "index vectors": CORES * INDEXED / built.cpu_seconds,
        "bytes of embeddings": size["embeddings"] / INDEXED,
        "bytes of index": size["index"] / INDEXED,
    }


def table(rates: dict[str, float], asked: argparse.Namespace) -> str:
    """The derived table, as Markdown."""
    amounts = {
        "prepare, log": ("log rows", asked.rows, 0.0),
        "prepare, pictures": ("pictures", asked.items, rates["bytes of packed pictures"] * asked.items),
        "train": ("training pairs", asked.pairs, 0.0),
        "embed, with pictures": ("items with pictures", asked.items, rates["bytes of embeddings"] * asked.items),
        "index, embedded": ("index vectors", asked.items, rates["bytes of index"] * asked.items),
    }
    lines = [
        f"| stage | amount | measured, {CORES} cores | core hours | machines of {asked.cores} cores | hours "
        "| GB written | cost |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for stage, (rate, amount, size) in amounts.items():
        hours = amount / (rates[rate] / CORES) / 3600 / asked.efficiency
        machines = 1 if stage.startswith("index") else max(1, math.ceil(hours / asked.cores / asked.hours))
        wall = hours / asked.cores / machines
        cost = machines * asked.cores * wall * asked.price
        lines.append(
            f"| {stage} | {amount:,} | {rates[rate]:,.0f} {rate}/s | {hours:,.0f} | {machines} | {wall:,.1f} | "
            f"{size / 1e9:,.0f} | {cost:,.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=Path, help="rates of an earlier run")
    parser.add_argument("--save", type=Path, help="write the measured rates there")
    parser.add_argument("--items", type=int, default=100_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    parser.add_argument("--pairs", type=int, default=50_000_000, help="pairs that training sees, repetitions included")
    parser.add_argument("--cores", type=int, default=32, help="of a machine")
    parser.add_argument("--hours", type=float, default=8, help="that a stage may take")
    parser.add_argument("--efficiency", type=float, default=0.7, help="share of the cores' rates that remains: assumed")
    parser.add_argument("--price", type=float, default=0.04, help="of a core hour, in any currency: an example")
    asked = parser.parse_args()
    rates = json.loads(asked.rates.read_text()) if asked.rates else measured()
    if asked.save:
        asked.save.write_text(json.dumps(rates, indent=2) + "\n")
    print("a second of two cores:", json.dumps({name: round(rate, 1) for name, rate in rates.items()}))
    print(table(rates, asked))


if __name__ == "__main__":
    main()
