"""Compare the models of one or several runs on the test period: tables, tests, controls, charts.

smar evaluate run dataset --out report
smar evaluate run dataset --out report --runner ray
smar evaluate run dataset --qrels qrels.parquet --out report
smar evaluate run-a run-b dataset --names small,large --out report
smar evaluate run dataset --trec-run solr=solr.trec --out report
"""

from argparse import ArgumentParser, Namespace

from smar.commands import arguments as types
from smar.commands.command import Rows, say
from smar.core.progress import summary


def arguments(command: ArgumentParser) -> None:
    add = command.add_argument
    add("runs", type=types.made, nargs="+", metavar="RUN")
    add("dataset", type=types.made, metavar="DATASET")
    text = "query, item_id, relevance[, hidden], or TREC's judgements; test clicks when not given"
    add("--qrels", metavar="FILE", help=text)
    text = "another system's ranking, a TREC run file, as a row of the report"
    add("--trec-run", type=types.named_file, action="append", default=[], metavar="NAME=FILE", help=text)
    add("--topics", type=types.file, metavar="FILE", help="lines `id query`: what TREC files call the queries")
    add("--names", type=types.names, default=[], metavar="A,B", help="names of the runs in the report")
    types.add_assignments(command)
    types.add_device(command)
    types.add_runner(command)
    add("--out", type=types.folder, required=True, metavar="REPORT")


def run(options: Namespace) -> None:
    from smar.api.stages import evaluate
    from smar.evaluation.terminal import key_figures, print_table

    given = {name: getattr(options, name) for name in ("qrels", "names", "topics", "assignments", "device", "runner")}
    done = evaluate(options.runs, options.dataset, options.out, trec_runs=options.trec_run, **given).summary
    print_table(done.findings)
    rows: Rows = [*key_figures(done.findings), *((name, done.notes[name]) for name, _ in options.trec_run)]
    rows += [("queries", done.queries), ("report", options.out / "report.md"), ("seconds", done.seconds)]
    summary(f"report in {options.out}", rows, say("embed", options.runs[0], options.dataset, "--out", "embeddings"))
