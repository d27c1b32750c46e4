"""Train and measure variants of a configuration as one table, or finish such a table.

smar ablate configs/fashion.yaml dataset --out ablation --plan
smar ablate configs/fashion.yaml dataset --out ablation --only base,vit --workers 2 --set 'ablate.steps=[150, 50]'
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types
from smar.commands.command import Rows
from smar.core.progress import summary


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("config", type=types.file, metavar="CONFIG", help="YAML file with a section `ablate`")
    add("dataset", type=types.made, metavar="DATASET")
    add("--out", type=types.folder, required=True, metavar="FOLDER")
    add("--only", type=types.names, default=[], metavar="NAME,NAME", help="these variants only")
    add("--workers", type=types.positive, default=1, metavar="N", help="variants at once, a thread each")
    add("--plan", action="store_true", help="print what would run, and stop")
    add("--qrels", type=types.file, metavar="FILE", help="judgements to measure beside the clicks")
    types.add_assignments(command)
    types.add_device(command)


def run(options: Namespace) -> None:
    from smar.evaluation.ablation.ablate import ablate, print_plan

    call = {"only": options.only, "qrels": options.qrels, "assignments": options.assignments}
    if options.plan:
        print_plan(options.config, options.dataset, options.out, **call)
        return
    done = ablate(options.config, options.dataset, options.out, workers=options.workers, device=options.device, **call)
    rows: Rows = [("rows", f"{done.rows} of {done.planned}"), ("trained now", done.trained)]
    rows += [("table", options.out / "ablation.md"), ("seconds", done.seconds)]
    summary(f"ablation in {options.out}", rows)
