"""What each command of `smar` does: call the stage, print its summary and the command to run next."""

import argparse
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from smar.core.errors import InputError
from smar.core.progress import console, summary

if TYPE_CHECKING:
    from smar.serving.engine import Engine
    from smar.serving.remote_engine import RemoteEngine


_LAST = "when all parts are there, the same command without {}, which finishes"


def _say(*words: object) -> str:
    return shlex.join(["smar", *map(str, words)])


def prepare(options: argparse.Namespace) -> None:
    """`smar prepare`."""
    from smar.api.stages import pictures_prepared, prepared

    tables = {name: getattr(options, name) for name in ("items", "clicks", "images", "queries")}
    given = (options.config, options.assignments, options.pictures_for)
    if options.part is not None:
        made = pictures_prepared(tables, options.out, options.part, *given, options.runner)
        rows: list[tuple[str, object]] = [("decoded", "now" if made else "before")]
        summary(f"part {options.part} of the pictures of {options.out}", rows, _LAST.format("--pictures"))
        return
    chosen = (options.engine, options.spark_master, options.runner)
    done = prepared(tables, options.out, *given, options.test_from, *chosen)
    next_command = ["train", options.out, "--out", "run"] + (["--config", options.config] if options.config else [])
    summary(f"dataset in {options.out}", done.rows(), _say(*next_command))


def train(options: argparse.Namespace) -> None:
    """`smar train`."""
    from smar.api.stages import train as run

    given = {name: getattr(options, name) for name in ("config", "source", "assignments", "device")}
    done = run(options.dataset, options.out, **given)
    next_command = _say("evaluate", options.out, options.dataset, "--out", "report")
    summary(f"run in {options.out}", done.summary.rows(), next_command)


def evaluate(options: argparse.Namespace) -> None:
    """`smar evaluate`."""
    from smar.api.stages import evaluate as run
    from smar.evaluation.terminal import key_figures, print_table

    given = {name: getattr(options, name) for name in ("qrels", "names", "topics", "assignments", "device", "runner")}
    done = run(options.runs, options.dataset, options.out, trec_runs=options.trec_run, **given).summary
    print_table(done.findings)
    rows: list[tuple[str, object]] = [
        *key_figures(done.findings),
        *((name, done.notes[name]) for name, _ in options.trec_run),
        ("queries", done.queries),
        ("report", options.out / "report.md"),
        ("seconds", done.seconds),
    ]
    summary(f"report in {options.out}", rows, _say("embed", options.runs[0], options.dataset, "--out", "embeddings"))


def queries(options: argparse.Namespace) -> None:
    """`smar queries`."""
    from smar.evaluation.queries import find_queries
    from smar.evaluation.queries_report import write_queries_report
    from smar.search.local import UpdatableIndex

    found = find_queries(options.events)
    catalogue = UpdatableIndex.open(options.index).snapshot.catalogue
    lists = write_queries_report(options.out, found, catalogue, options.least)
    rows: list[tuple[str, object]] = [("searches", found.total.searches), ("queries", len(found.queries))]
    rows += [(name.lower(), count) for name, count in lists.items()]
    rows += [("proposed synonyms", len(found.replaced)), ("report", options.out / "report.md")]
    summary(f"report in {options.out}", rows)


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
    from smar.api.stages import embedded, part_embedded

    given = (options.run, options.dataset, options.out, options.device, options.runner)
    rows: list[tuple[str, object]]
    if options.part is not None:
        part = part_embedded(*given, options.part)
        shards = f"{part.shards} of {part.of} ({part.reused} from before)"
        rows = [("shards", shards), ("seconds", part.seconds)]
        summary(f"part {options.part} of embeddings in {options.out}", rows, _LAST.format("--part"))
        return
    done = embedded(*given)
    status = ", ".join(f"{name} {count:,}" for name, count in sorted(done.manifest.image_status.items()))
    rows = [
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
    if options.to is not None:
        _load_engine(options)
    elif isinstance(options.source, str):
        _change_engine(options)
    elif options.out is not None:
        from smar.search.local import RECALL_TARGET, build_index

        target = options.recall or RECALL_TARGET
        done = build_index(options.source, options.out, recall=target, query=options.query, memory=options.memory)
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


def _load_engine(options: argparse.Namespace) -> None:
    from smar.search.engines import password_free
    from smar.search.loading import RECALL_TARGET, load

    if isinstance(options.source, str):
        raise InputError("--to loads a folder of embeddings; an engine's URL is no such folder.")
    target = options.recall or RECALL_TARGET
    done = load(options.source, options.to, target, options.workers, options.runner)
    missed = f", BELOW the target {target:g}: items too much alike" if done.recall < target else ""
    shown = asdict(done) | {"recall": f"{done.recall:.4f}{missed}"}
    rows = [("items a second" if name == "rate" else name, value) for name, value in shown.items()]
    summary(f"index in {password_free(options.to)}", rows, _say("serve", password_free(options.to)))


def _change_engine(options: argparse.Namespace) -> None:
    """An engine's index: updates go straight to it."""
    from smar.search.engines import open_engine, password_free

    if options.out is not None or options.compact:
        said = "an engine keeps its own order, so there is nothing to compact" if options.compact else "it is no folder"
        raise InputError(f"{password_free(options.source)}: {said}. Use --to, --update, --delete or --rollback.")
    engine = open_engine(options.source, deadline=60)
    try:
        rows: list[tuple[str, object]]
        if options.update is not None:
            from smar.embedding.update_engine import update_engine

            done = update_engine(engine.index, options.run, options.update, options.images, options.device)
            rows = [("items", done.items), *((f"rejected: {why}", count) for why, count in done.rejects.items())]
        elif options.rollback:
            rows = [("serves", engine.store.rollback())]
        else:
            wanted = _ids(options.delete)
            deleted = engine.index.delete(wanted)
            rows = [("deleted", deleted), ("ids that were not there", len(set(wanted)) - deleted)]
            rows.append(("items", len(engine.index)))
    finally:
        engine.close()
    summary(f"index in {password_free(options.source)}", rows)


def _ids(path: Path) -> list[str]:
    """Item ids, one a line."""
    try:
        ids = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--delete {path} cannot be read: {error}") from None
    return [name for name in (line.removesuffix("\r") for line in ids) if name]


def _refuse_stray_index_options(options: argparse.Namespace) -> None:
    if (options.update is None) != (options.run is None):
        raise InputError("--update ITEMS and --run RUN belong together: the run's model encodes the items.")
    if options.images and options.update is None:
        raise InputError("--images belongs to --update.")
    if options.to is None and (options.workers > 1 or options.runner != "local"):
        raise InputError("--workers and --runner belong to --to: shards are loaded side by side.")
    built = options.out is not None or (options.to is not None and options.query is None)
    if (options.recall is not None or options.query is not None) and not built:
        raise InputError("--recall and --query belong to --out: an index keeps what it was built with.")
    if options.memory is not None and options.out is None:
        raise InputError("--memory belongs to --out: it bounds the build from embeddings.")


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
        wanted = _ids(options.delete)
        deleted = index.delete(wanted)
        rows += [("deleted", deleted), ("ids that were not there", len(set(wanted)) - deleted)]
    summary(f"index in {options.source}", [*rows, ("items", len(index.snapshot))])


def export(options: argparse.Namespace) -> None:
    """`smar export`."""
    from smar.export.onnx import PROBE, export_query
    from smar.export.quantise import add_int8
    from smar.model.run_folder import load_encoder
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
    from smar.model.run_folder import load_encoder

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
    from smar.api.index import Index
    from smar.serving.printed import print_result

    if (options.query is None) == (options.queries is None):
        raise InputError(
            'give one query, such as smar search INDEX "red dress", or --queries FILE with --run RUN.trec.'
        )
    if (options.queries is None) != (options.run is None):
        raise InputError("--queries FILE and --run RUN.trec belong together: the run is where the answers go.")
    if options.queries is not None and options.rules is not None:
        raise InputError("--rules are for one query; a run of --queries shows what the model finds.")
    index = Index.open(options.index, options.folder, rules=options.rules)
    if options.queries is not None:
        _search_file(index.engine, options)
        return
    given = {name: getattr(options, name) for name in ("offset", "sort", "rank", "collapse", "facets", "cutoff")}
    result = index.search(options.query, options.k, options.mode, options.filter, **given)
    if options.json:
        from smar.serving.answers import as_json, result_out

        print(msgspec.json.format(as_json(result_out(result, options.fields)), indent=2).decode())
        return
    print_result(result)


def _search_file(engine: "Engine | RemoteEngine", options: argparse.Namespace) -> None:
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


def compare(options: argparse.Namespace) -> None:
    """`smar compare`."""
    from smar.evaluation.compare import compare as run
    from smar.evaluation.compare import comparison_rows

    done = run(options.events, options.control, options.effect, options.design)
    if options.json:
        told = [vars(row) | {"winner": row.winner} for row in done.rows]
        print(msgspec.json.format(msgspec.json.encode(vars(done) | {"rows": told}), indent=2).decode())
        return
    summary(f"{done.design}: {', '.join(map(str, options.events))}", comparison_rows(done, options.effect))


def serve(options: argparse.Namespace) -> None:
    """`smar serve`."""
    from smar.core.logs import configure_logs
    from smar.serving.options import named_paths, read_keys, service_options
    from smar.serving.supervise import serve as run
    from smar.storage.following import following

    names = ("workers", "protect_reads", "rate", "log", "cors", "root_path", "rules", "facets", "sort", "collapse")
    further = {name: getattr(options, name) for name in ("split", "interleave", "events", "events_sessions")}
    named = {name: getattr(options, name) for name in names}
    chosen = service_options(options.assignments, keys=read_keys(options.keys), **named, **further)
    configure_logs()
    indexes = named_paths(options.indexes)
    if any(isinstance(one, str) for one in indexes.values()):
        _check_engine(indexes, options)
    runs = named_paths(options.model, next(iter(indexes)))
    with following(options.stores, options.poll):
        run(indexes, options.host, options.port, chosen, runs, options.device, options.folder)


def _check_engine(indexes: Mapping[str, Path | str], options: argparse.Namespace) -> None:
    if len(indexes) > 1:
        raise InputError("an engine behind a URL is served alone; give each a `smar serve` of its own.")
    if options.model:
        raise InputError("--model writes to an index folder; items of an engine are changed with `smar index URL`.")
    if options.rules is not None:
        raise InputError("--rules are followed by the embedded index alone; an engine behind a URL has none.")
    if options.events is not None:
        raise InputError("--events are taken beside the embedded index alone; an engine behind a URL has none.")


def encode_service(options: argparse.Namespace) -> None:
    """`smar encode-service`."""
    from smar.core.logs import configure_logs
    from smar.serving.encode_route import encoder_in
    from smar.serving.options import service_options
    from smar.serving.supervise import serve as run

    encoder_in(options.folder)  # a wrong folder is told before anything is started
    configure_logs()
    run(options.folder, options.host, options.port, service_options(workers=options.workers), encode=True)


def bulk(options: argparse.Namespace) -> None:
    """`smar bulk`."""
    from smar.export.bulk import write_bulk

    done = write_bulk(options.embeddings, options.to, options.out)
    rows: list[tuple[str, object]] = [("items", done.items), ("files", ", ".join(done.files))]
    rows.append(("servers", "none was run here; the files follow the vendor's published format"))
    summary(f"bulk files for {options.to} in {options.out}", rows, _say("encode-service", options.embeddings))


DEMO_TRAINING = (
    *("--set", "train.stage1.steps=300", "--set", "train.stage2.steps=100"),
    *("--set", "train.baselines=[{kind: dpsr}, {kind: dpsr-i, steps: [100, 30]}]"),
)
"""Four minutes on 2 cores; the picture-only baseline is there for the table and gets a third of the steps."""
_TINY = "{layers: 1, hidden: 32, heads: 2}"
QUICK_TRAINING = [f"train.{stage}.{key}" for stage in ("stage1", "stage2") for key in ("steps=2", "batch_size=32")]
QUICK_TRAINING += ["evaluate.bootstrap=100"] + [f"model.{tower}={_TINY}" for tower in ("query", "text", "vision")]


def demo(options: argparse.Namespace) -> None:
    """`smar demo`: every stage on a generated shop; finished stages of an earlier call are kept."""
    from smar.demo.shop import generate_shop

    started, out = time.perf_counter(), options.out
    shop, dataset, run = out / "shop", out / "dataset", out / "run"
    if (dataset / "manifest.json").is_file():
        console.print(f"{dataset} is there already; delete {out} to start anew.", markup=False)
    else:
        made = generate_shop(shop, 300, 3000) if options.quick else generate_shop(shop)
        summary(f"generated shop with a simulated log in {shop}", list(asdict(made).items()))
        _run(
            *("prepare", "--items", shop / "items.parquet", "--clicks", shop / "clicks.parquet"),
            *("--queries", shop / "queries.parquet", "--out", dataset),
            *("--set", "data.slice_columns=[group,category]", "--set", "data.note=generated shop, simulated log"),
        )
    quick = [word for assignment in QUICK_TRAINING for word in ("--set", assignment)]
    _run("train", dataset, "--out", run, *(quick if options.quick else DEMO_TRAINING))
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
    from smar.parser import parser

    console.print(f"\n[bold cyan]$ {_say(*words)}[/bold cyan]", soft_wrap=True)
    options = parser().parse_args([str(word) for word in words])
    globals()[options.command](options)
