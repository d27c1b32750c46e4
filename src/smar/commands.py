"""What each command of `smar` does: call the stage, print its summary and the command to run next."""

import argparse
import shlex
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec

from smar.core.errors import InputError
from smar.core.progress import console, summary
from smar.core.settings import load_settings

if TYPE_CHECKING:
    from smar.serving.engine import Engine


def _say(*words: object) -> str:
    return shlex.join(["smar", *map(str, words)])


def prepare(options: argparse.Namespace) -> None:
    """`smar prepare`."""
    from smar.data.prepare import prepare as run

    settings = load_settings(options.config, [*_framing(options.pictures_for), *options.assignments])
    tables = {name: getattr(options, name) for name in ("items", "clicks", "images", "queries")}
    engine = {"engine": options.engine, "spark_master": options.spark_master}
    done = run(settings.data, **tables, test_from=options.test_from, out=options.out, **engine)
    next_command = ["train", options.out, "--out", "run"] + (["--config", options.config] if options.config else [])
    summary(f"dataset in {options.out}", done.rows(), _say(*next_command))


def _framing(checkpoint: str | None) -> list[str]:
    """Picture settings as the image processor of a checkpoint has them."""
    if checkpoint is None:
        return []
    from smar.model.framing import read_framing

    return read_framing(checkpoint).assignments()


def train(options: argparse.Namespace) -> None:
    """`smar train`."""
    from smar.data.dataset import Dataset
    from smar.training.recipe import propose
    from smar.training.train import train as run
    from smar.training.warm import warm_settings

    dataset = Dataset.open(options.dataset)
    given, data = (options.config, options.assignments), dataset.manifest.settings
    if options.source is None:
        base, told = propose(dataset, load_settings(*given, data=data))
        for line in told:
            console.print(line, markup=False, soft_wrap=True)
    else:
        base = warm_settings(options.source)
    settings = load_settings(*given, data=data, base=base)
    done = run(dataset, options.out, settings, options.source, options.device)
    summary(f"run in {options.out}", done.rows())
    next_command = _say("evaluate", options.out, options.dataset, "--out", "report")
    console.print(f"\nnext: {next_command}\n", markup=False, soft_wrap=True)


def evaluate(options: argparse.Namespace) -> None:
    """`smar evaluate`."""
    from smar.evaluation.evaluate import evaluate_runs
    from smar.evaluation.terminal import key_figures, print_table

    done = evaluate_runs(
        *(options.runs, options.dataset, options.out, options.qrels, options.names, options.assignments),
        trec_runs=options.trec_run,
        topics=options.topics,
        device=options.device,
    )
    print_table(done.findings)
    rows: list[tuple[str, object]] = [
        *key_figures(done.findings),
        *((name, done.notes[name]) for name, _ in options.trec_run),
        ("queries", done.queries),
        ("report", options.out / "report.md"),
        ("seconds", done.seconds),
    ]
    summary(f"report in {options.out}", rows, _say("embed", options.runs[0], options.dataset, "--out", "embeddings"))


def ablate(options: argparse.Namespace) -> None:
    """`smar ablate`."""
    from smar.evaluation.ablation.ablate import ablate as run
    from smar.evaluation.ablation.ablate import print_plan

    call = {"only": options.only, "qrels": options.qrels, "assignments": options.assignments}
    if options.plan:
        print_plan(options.config, options.dataset, options.out, **call)
        return
    done = run(options.config, options.dataset, options.out, workers=options.workers, device=options.device, **call)
    rows: list[tuple[str, object]] = [
        ("rows", f"{done.rows} of {done.planned}"),
        ("trained now", done.trained),
        ("table", options.out / "ablation.md"),
        ("seconds", done.seconds),
    ]
    summary(f"ablation in {options.out}", rows)


def embed(options: argparse.Namespace) -> None:
    """`smar embed`."""
    from smar.data.dataset import Dataset
    from smar.embedding.embed import embed as run
    from smar.model.device import all_devices
    from smar.model.run import load_encoder

    devices = all_devices(options.device)
    done = run(load_encoder(options.run), Dataset.open(options.dataset), options.out, devices=devices)
    status = ", ".join(f"{name} {count:,}" for name, count in sorted(done.manifest.image_status.items()))
    rows: list[tuple[str, object]] = [
        ("items", done.manifest.items),
        ("pictures", status),
        ("shards", f"{len(done.manifest.shards)} ({done.reused} from before)"),
        ("model", done.manifest.fingerprint),
        ("seconds", done.seconds),
    ]
    summary(f"embeddings in {options.out}", rows, _say("index", options.out, "--out", "index"))


def index(options: argparse.Namespace) -> None:
    """`smar index`."""
    _refuse_stray_index_options(options)
    if options.out is not None:
        from smar.search.local import RECALL_TARGET, build_index

        target = options.recall or RECALL_TARGET
        done = build_index(options.source, options.out, recall=target, query=options.query)
        missed = f", BELOW the target {target:g}: items too much alike" if (done.recall or target) < target else ""
        shown = asdict(done) | {"recall": done.recall and f"{done.recall:.4f}{missed}"}
        rows = [(name, value) for name, value in shown.items() if value is not None]
        summary(f"index in {options.out}", rows, _say("serve", options.out))
    elif options.update is not None:
        _update_index(options)
    elif options.rollback:
        from smar.search.local import rollback

        now = rollback(options.source)
        summary(f"index in {options.source}", [("serves", now.version), ("served before", now.previous)])
    else:
        _change_index(options)


def _refuse_stray_index_options(options: argparse.Namespace) -> None:
    if (options.update is None) != (options.run is None):
        raise InputError("--update ITEMS and --run RUN belong together: the run's model encodes the items.")
    if options.images and options.update is None:
        raise InputError("--images belongs to --update.")
    if (options.recall is not None or options.query is not None) and options.out is None:
        raise InputError("--recall and --query belong to --out: an index keeps what it was built with.")


def _update_index(options: argparse.Namespace) -> None:
    from smar.embedding.update import update_index

    done = update_index(options.source, options.run, options.update, options.images, options.device)
    status = ", ".join(f"{name} {count:,}" for name, count in sorted(done.image_status.items()) if count)
    rows: list[tuple[str, object]] = [("items", done.items), ("pictures", status)]
    rows += [(f"rejected: {reason}", count) for reason, count in done.rejects.items()]
    summary(f"index in {options.source} updated", [*rows, ("seconds", done.seconds)])


def _change_index(options: argparse.Namespace) -> None:
    from smar.search.local import UpdatableIndex

    index = UpdatableIndex.open(options.source)
    rows: list[tuple[str, object]] = []
    if options.compact:
        rows.append(("version", index.compact()))
    else:
        try:
            ids = options.delete.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--delete {options.delete} cannot be read: {error}") from None
        wanted = [name for name in (line.removesuffix("\r") for line in ids) if name]
        deleted = index.delete(wanted)
        rows += [("deleted", deleted), ("ids that were not there", len(set(wanted)) - deleted)]
    summary(f"index in {options.source}", [*rows, ("items", len(index.snapshot))])


def export(options: argparse.Namespace) -> None:
    """`smar export`."""
    from smar.export.onnx import PROBE, export_query
    from smar.export.quantise import add_int8
    from smar.model.run import load_encoder
    from smar.search.query import Precision, QueryManifest

    if options.format != "onnx":
        _export_sentences(options)
        return
    if options.precision == "int8" and options.embeddings is None:
        raise InputError("--precision int8 needs --embeddings EMBEDDINGS: its cost is measured before it is used.")
    if options.out.exists() and any(options.out.iterdir()):
        QueryManifest.read(options.out, "smar export")  # an older export is replaced, anything else is not
    manifest = export_query(load_encoder(options.run, options.baseline), options.out, PROBE)
    if options.embeddings is not None:
        manifest = add_int8(options.out, options.embeddings, Precision(options.precision))
    rows: list[tuple[str, object]] = [("model", manifest.fingerprint), ("default", str(manifest.precision))]
    if (cost := manifest.int8) is not None:
        rows += [
            ("recall@50 float32", f"{cost.float32:.4f} on {cost.queries:,} validation queries"),
            (
                "recall@50 int8",
                f"{cost.int8:.4f} (cost {cost.recall_cost:.2%}; {cost.overlap:.1%} of the top 50 equal)",
            ),
        ]
    summary(f"query encoder in {options.out}", rows, "smar index embeddings --query " + f"{options.out} --out index")


def _export_sentences(options: argparse.Namespace) -> None:
    from smar.export.sentences import export_sentences
    from smar.model.run import load_encoder

    if options.embeddings is not None or options.precision != "float32":
        raise InputError("--embeddings and --precision belong to --format onnx: int8 is of the ONNX graph.")
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / "modules.json").is_file():
        raise InputError(
            f"{options.out} is not empty and was not made by this command (no modules.json). Choose another --out."
        )
    encoder = load_encoder(options.run, options.baseline)
    worst = export_sentences(encoder, options.out)
    rows: list[tuple[str, object]] = [("model", encoder.fingerprint), ("largest difference", f"{worst:.0e}")]
    summary(f"sentence-transformers folder in {options.out}", rows)


def search(options: argparse.Namespace) -> None:
    """`smar search`."""
    from smar.search.local import Collapse, Facets, Shape
    from smar.search.protocol import Mode
    from smar.serving.engine import Engine
    from smar.serving.printed import print_result

    if (options.query is None) == (options.queries is None):
        raise InputError(
            'give one query, such as smar search INDEX "red dress", or --queries FILE with --run RUN.trec.'
        )
    if (options.queries is None) != (options.run is None):
        raise InputError("--queries FILE and --run RUN.trec belong together: the run is where the answers go.")
    engine = Engine.open(options.index)
    if options.queries is not None:
        _search_file(engine, options)
        return
    shape = Shape(
        rank=options.rank,
        sort=tuple(options.sort),
        collapse=Collapse(options.collapse) if options.collapse else None,
        facets=Facets(tuple(options.facets)) if options.facets else None,
    )
    result = engine.search(options.query, options.k, Mode(options.mode), options.filter, False, options.offset, shape)
    if options.json:
        from smar.serving.answers import as_json, result_out

        print(msgspec.json.format(as_json(result_out(result, options.fields)), indent=2).decode())
        return
    print_result(result)


def _search_file(engine: "Engine", options: argparse.Namespace) -> None:
    """Answer a file of queries as a TREC run whose topics are line numbers from 0."""
    from smar.core.files import atomic
    from smar.core.progress import track
    from smar.search.protocol import Mode

    started = time.perf_counter()
    try:
        text = options.queries.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--queries {options.queries} cannot be read: {error}") from None
    # Not splitlines, which also ends lines at signs such as U+2028: topics are numbers of lines that others see.
    queries = text.removesuffix("\n").split("\n")
    options.run.parent.mkdir(parents=True, exist_ok=True)
    answers = engine.search_many(queries, options.k, Mode(options.mode), options.filter)
    lines = 0
    with atomic(options.run) as partial, partial.open("w", encoding="utf-8") as out:
        for topic, hits in enumerate(track(answers, "search (queries)", len(queries))):
            for place, hit in enumerate(hits, start=1):
                if len(hit.item_id.split()) != 1:
                    raise InputError(f"item_id {hit.item_id!r} holds white space, which a TREC run cannot.")
                out.write(f"{topic} Q0 {hit.item_id} {place} {hit.score:.6f} smar-{options.mode}\n")
                lines += 1
    seconds = time.perf_counter() - started
    rows: list[tuple[str, object]] = [
        ("queries", len(queries)),
        ("lines", lines),
        ("queries per second", len(queries) / seconds),
    ]
    summary(f"run in {options.run}", rows)


def serve(options: argparse.Namespace) -> None:
    """`smar serve`."""
    from smar.core.logs import configure_logs
    from smar.serving.options import read_keys, service_options
    from smar.serving.supervise import serve as run

    names = ("workers", "protect_reads", "rate", "log", "cors", "root_path", "facets", "sort", "collapse")
    named = {name: getattr(options, name) for name in names}
    chosen = service_options(options.assignments, keys=read_keys(options.keys), **named)
    configure_logs()
    run(options.index, options.host, options.port, chosen, options.model, options.device)


DEMO_TRAINING = (
    *("--set", "train.stage1.steps=300", "--set", "train.stage2.steps=100"),
    *("--set", "train.baselines=[{kind: dpsr}, {kind: dpsr-i, steps: [100, 30]}]"),
)
"""Four minutes on 2 cores; the picture-only baseline is there for the table and gets a third of the steps."""


def demo(options: argparse.Namespace) -> None:
    """`smar demo`: every stage on a generated shop; finished stages of an earlier call are kept."""
    from smar.demo.shop import generate_shop

    started, out = time.perf_counter(), options.out
    shop, dataset, run = out / "shop", out / "dataset", out / "run"
    if (dataset / "manifest.json").is_file():
        console.print(f"{dataset} is there already; delete {out} to start anew.", markup=False)
    else:
        made = generate_shop(shop)
        summary(f"generated shop with a simulated log in {shop}", list(asdict(made).items()))
        _run(
            *("prepare", "--items", shop / "items.parquet", "--clicks", shop / "clicks.parquet"),
            *("--queries", shop / "queries.parquet", "--out", dataset),
            *("--set", "data.slice_columns=[group,category]", "--set", "data.note=generated shop, simulated log"),
        )
    _run("train", dataset, "--out", run, *DEMO_TRAINING)
    _run("evaluate", run, dataset, "--out", out / "report")
    _run("evaluate", run, dataset, "--qrels", shop / "qrels.parquet", "--out", out / "report-truth")
    _run("embed", run, dataset, "--out", out / "embeddings")
    _run("index", out / "embeddings", "--out", out / "index")
    console.print(f"[bold]demo done[/bold] in {time.perf_counter() - started:,.0f} s: generated shop, simulated log")
    if options.no_serve:
        console.print(f"next: {_say('serve', out / 'index')}", markup=False, soft_wrap=True)
    else:
        _run("serve", out / "index", "--host", options.host, "--port", options.port)


def _run(*words: object) -> None:
    """Show a command and run it in this process, as if it had been typed."""
    from smar.cli import parser

    console.print(f"\n[bold cyan]$ {_say(*words)}[/bold cyan]", soft_wrap=True)
    options = parser().parse_args([str(word) for word in words])
    globals()[options.command](options)
