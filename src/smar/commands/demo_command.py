"""The whole line on a generated shop, then the search page.

smar demo
smar demo --out /tmp/shop --no-serve
smar demo --quick --no-serve
"""

import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from smar.commands import arguments as types
from smar.commands import embed_command, evaluate_command, index_command, prepare_command, serve_command, train_command
from smar.commands.command import Command, call, name_of, say
from smar.core.progress import console, summary

DEMO_TRAINING = (
    *("--set", "train.stage1.steps=300", "--set", "train.stage2.steps=100"),
    *("--set", "train.baselines=[{kind: dpsr}, {kind: dpsr-i, steps: [100, 30]}]"),
)
"""Four minutes on 2 cores; the picture-only baseline is there for the table and gets a third of the steps."""
_TINY = "{layers: 1, hidden: 32, heads: 2}"
QUICK_TRAINING = [f"train.{stage}.{key}" for stage in ("stage1", "stage2") for key in ("steps=2", "batch_size=32")]
QUICK_TRAINING += ["evaluate.bootstrap=100"] + [f"model.{tower}={_TINY}" for tower in ("query", "text", "vision")]


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("--out", type=types.folder, default=Path("demo"), metavar="DIR")
    add("--quick", action="store_true", help="300 items and two steps: does everything run here?")
    add("--no-serve", action="store_true", help="stop before serving")
    types.add_address(command)


def run(options: Namespace) -> None:
    """Every stage; finished stages of an earlier call are kept."""
    from smar.demo.shop import generate_shop

    started, out = time.perf_counter(), options.out
    shop, dataset, trained = out / "shop", out / "dataset", out / "run"
    if (dataset / "manifest.json").is_file():
        console.print(f"{dataset} is there already; delete {out} to start anew.", markup=False)
    else:
        made = generate_shop(shop, 300, 3000) if options.quick else generate_shop(shop)
        summary(f"generated shop with a simulated log in {shop}", list(asdict(made).items()))
        _run(
            *(prepare_command, "--items", shop / "items.parquet", "--clicks", shop / "clicks.parquet"),
            *("--queries", shop / "queries.parquet", "--out", dataset),
            *("--set", "data.slice_columns=[group,category]", "--set", "data.note=generated shop, simulated log"),
        )
    quick = [word for assignment in QUICK_TRAINING for word in ("--set", assignment)]
    _run(train_command, dataset, "--out", trained, *(quick if options.quick else DEMO_TRAINING))
    _run(evaluate_command, trained, dataset, "--out", out / "report")
    _run(evaluate_command, trained, dataset, "--qrels", shop / "qrels.parquet", "--out", out / "report-truth")
    _run(embed_command, trained, dataset, "--out", out / "embeddings")
    _run(index_command, out / "embeddings", "--out", out / "index")
    console.print(f"[bold]demo done[/bold] in {time.perf_counter() - started:,.0f} s: generated shop, simulated log")
    if options.no_serve:
        console.print(f"next: {say('serve', out / 'index')}", markup=False, soft_wrap=True)
    else:
        _run(serve_command, out / "index", "--host", options.host, "--port", options.port)


def _run(command: Command, *words: object) -> None:
    """Show a command and run it in this process, as if it had been typed."""
    console.print(f"\n[bold cyan]$ {say(name_of(command), *words)}[/bold cyan]", soft_wrap=True)
    parser = ArgumentParser()
    command.arguments(parser)
    call(command, parser.parse_args([str(word) for word in words]))
