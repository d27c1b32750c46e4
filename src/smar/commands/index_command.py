"""Build the search index from embeddings, or change an index.

smar index embeddings --out index
smar index embeddings --to postgresql://user@host/shop --workers 4
smar index index --update new-items.parquet --run run
smar index index --delete ids.txt
smar index index --compact
smar index index --rollback
"""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from smar.commands import arguments as types
from smar.commands.command import Rows, say
from smar.core.errors import InputError
from smar.core.progress import summary

if TYPE_CHECKING:
    from smar.search.local import UpdatableIndex
    from smar.search.remote_index import RemoteIndex


def arguments(command: ArgumentParser) -> None:
    add, group = command.add_argument, command.add_mutually_exclusive_group(required=True)
    text = "embeddings with --out or --to; else the index to change, a folder or the URL of an engine"
    add("source", type=types.held, metavar="SOURCE", help=text)
    what = group.add_argument
    what("--out", type=types.folder, metavar="INDEX", help="add a version to this index and serve it")
    text = "load an engine instead: postgresql://, milvus://, lance:// (docs/engines.md)"
    what("--to", type=types.url, metavar="URL", help=text)
    add("--workers", type=types.positive, default=1, metavar="N", help="with --to: processes that load shards")
    types.add_runner(command)
    what("--update", nargs="+", metavar="ITEMS", help="tables of new and changed items; needs --run")
    what("--delete", type=types.file, metavar="FILE", help="ids of items to remove, one a line")
    what("--compact", action="store_true", help="make one new version of index and updates")
    what("--rollback", action="store_true", help="serve the previous version again")
    text = "with --out or --to: recall@50 to tune to (default 0.98)"
    add("--recall", type=float, metavar="SHARE", help=text)
    add("--query", type=types.made, metavar="DIR", help="with --out: a query encoder of `smar export`")
    text = "with --out: build large catalogues in so much, e.g. 4GB"
    add("--memory", type=types.size, metavar="SIZE", help=text)
    add("--run", type=types.made, metavar="RUN", help="with --update: the run whose model encodes the items")
    add("--images", nargs="+", default=[], metavar="PATH", help="with --update: pictures of the items")
    types.add_device(command)


def run(options: Namespace) -> None:
    _refuse_stray_options(options)
    if options.to is not None:
        _load_engine(options)
    elif isinstance(options.source, str):
        _change_engine(options)
    elif options.out is not None:
        _build(options)
    elif options.update is not None:
        _update(options)
    else:
        _change(options)


def _refuse_stray_options(options: Namespace) -> None:
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


def _build(options: Namespace) -> None:
    from smar.search.local import RECALL_TARGET, build_index

    target = options.recall or RECALL_TARGET
    done = build_index(options.source, options.out, recall=target, query=options.query, memory=options.memory)
    shown = asdict(done) | {"recall": done.recall and _shown_recall(done.recall, target)}
    rows = [(name, value) for name, value in shown.items() if value is not None]
    summary(f"index in {options.out}", rows, say("serve", options.out))


def _shown_recall(recall: float, target: float) -> str:
    return f"{recall:.4f}" + (f", BELOW the target {target:g}: items too much alike" if recall < target else "")


def _update(options: Namespace) -> None:
    from smar.embedding.update import update_index

    done = update_index(options.source, options.run, options.update, options.images, options.device)
    status = ", ".join(f"{name} {count:,}" for name, count in sorted(done.image_status.items()) if count)
    rows: Rows = [("items", done.items), ("pictures", status)]
    rows += [(f"rejected: {reason}", count) for reason, count in done.rejects.items()]
    summary(f"index in {options.source} updated", [*rows, ("seconds", done.seconds)])


def _change(options: Namespace) -> None:
    from smar.search.local import UpdatableIndex, rollback

    rows: Rows
    if options.rollback:
        now = rollback(options.source)
        rows = [("serves", now.version), ("served before", now.previous)]
    else:
        index = UpdatableIndex.open(options.source)
        rows = [("version", index.compact())] if options.compact else _deleted(index, options.delete)
        rows.append(("items", len(index.snapshot)))
    summary(f"index in {options.source}", rows)


def _deleted(index: "UpdatableIndex | RemoteIndex", file: Path) -> Rows:
    """Delete the items whose ids stand in a file, one a line."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--delete {file} cannot be read: {error}") from None
    ids = [name for name in (line.removesuffix("\r") for line in lines) if name]
    deleted = index.delete(ids)
    return [("deleted", deleted), ("ids that were not there", len(set(ids)) - deleted)]


def _load_engine(options: Namespace) -> None:
    from smar.search.engines import password_free
    from smar.search.loading import RECALL_TARGET, load

    if isinstance(options.source, str):
        raise InputError("--to loads a folder of embeddings; an engine's URL is no such folder.")
    target = options.recall or RECALL_TARGET
    done = load(options.source, options.to, target, options.workers, options.runner)
    shown = asdict(done) | {"recall": _shown_recall(done.recall, target)}
    rows = [("items a second" if name == "rate" else name, value) for name, value in shown.items()]
    summary(f"index in {password_free(options.to)}", rows, say("serve", password_free(options.to)))


def _change_engine(options: Namespace) -> None:
    """An engine's index: updates go straight to it."""
    from smar.search.engines import open_engine, password_free

    if options.out is not None or options.compact:
        said = "an engine keeps its own order, so there is nothing to compact" if options.compact else "it is no folder"
        raise InputError(f"{password_free(options.source)}: {said}. Use --to, --update, --delete or --rollback.")
    engine = open_engine(options.source, deadline=60)
    try:
        rows: Rows
        if options.update is not None:
            from smar.embedding.update_engine import update_engine

            done = update_engine(engine.index, options.run, options.update, options.images, options.device)
            rows = [("items", done.items), *((f"rejected: {why}", count) for why, count in done.rejects.items())]
        elif options.rollback:
            rows = [("serves", engine.store.rollback())]
        else:
            rows = [*_deleted(engine.index, options.delete), ("items", len(engine.index))]
    finally:
        engine.close()
    summary(f"index in {password_free(options.source)}", rows)
