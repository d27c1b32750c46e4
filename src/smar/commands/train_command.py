"""Train the model and its baselines, or finish a run that was interrupted.

smar train dataset --out run
smar train dataset --out run --config configs/fashion.yaml --set train.seed=1
smar train dataset-tuesday --from run-monday --out run-tuesday
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types
from smar.commands.command import say
from smar.core.progress import summary


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("dataset", type=types.made, metavar="DATASET")
    text = "go on from this finished run: its settings, its weights, a quarter of its steps"
    add("--from", type=types.made, dest="source", metavar="RUN", help=text)
    add("--out", type=types.folder, required=True, metavar="RUN")
    types.add_configuration(command)
    types.add_device(command)


def run(options: Namespace) -> None:
    from smar.api.stages import train

    given = {name: getattr(options, name) for name in ("config", "source", "assignments", "device")}
    done = train(options.dataset, options.out, **given)
    next_command = say("evaluate", options.out, options.dataset, "--out", "report")
    summary(f"run in {options.out}", done.summary.rows(), next_command)
