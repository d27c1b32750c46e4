"""`smar prepare`, tables and pictures to a dataset folder: the stages, what is written and counted.

Everything is written into ``OUT.partial`` and renamed at the end; spills and staged copies live in its
``work`` folder, which is removed before. A dataset that is replaced disappears only when the new one is
complete.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow.parquet as pq

from smar.core.errors import InputError, one_of
from smar.core.files import FileEntry, StrPath, describe, publish
from smar.core.progress import console
from smar.core.sections.data import AUTO, DataSettings
from smar.data.catalogue import build_items, item_columns, unread_prices, write_items, write_queries
from smar.data.clicks import LogCounts, build_pairs
from smar.data.columns import check_mapping
from smar.data.database import Connection, connect, copy, number, script, set_variables
from smar.data.dataset import FORMAT, DatasetManifest
from smar.data.language import MOST, guess_language
from smar.data.listing import list_pictures
from smar.data.picture_parts import decode_part, decoder_of
from smar.data.pictures import Decode, PictureCounts, decode_here, pack
from smar.data.selected import Tables
from smar.data.sources import Given
from smar.data.tables import Table, applied_format, check_types
from smar.data.times import check_format
from smar.runners.run import Part

ENGINES = ("duckdb", "spark")
_READ = MOST // 2  # titles, and as many queries


@dataclass
class PrepareSummary:
    """What `prepare` did."""

    out: Path
    counts: dict[str, int] = field(default_factory=dict)
    """The manifest's counts."""
    rejects: dict[str, int] = field(default_factory=dict)
    """'table: reason' -> rows."""
    image_status: dict[str, int] = field(default_factory=dict)
    """Picture status -> items."""
    test_from: datetime | None = None
    valid_from: datetime | None = None
    notes: list[str] = field(default_factory=list)
    """What the user should know, one sentence each."""
    language: str = ""
    """What was guessed as the language of the texts, and by what; empty where the settings name it."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> wall time."""

    def rows(self) -> list[tuple[str, object]]:
        """Lines for `smar.core.progress.summary`."""
        lines: list[tuple[str, object]] = [(name.replace("_", " "), value) for name, value in self.counts.items()]
        lines += [(f"items with picture {name}", value) for name, value in self.image_status.items() if value]
        lines += [(f"rejected {name}", value) for name, value in self.rejects.items()]
        lines += [("language", self.language)] if self.language else []
        if self.test_from is not None:
            lines += [("validation from", self.valid_from), ("test from", self.test_from)]
        lines += [("note", note) for note in self.notes]
        return lines + [(f"seconds for {name}", value) for name, value in self.seconds.items()]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and say on the terminal that it runs."""
        console.print(f"{name} ...", style="dim")
        started = monotonic()
        yield
        self.seconds[name] = round(monotonic() - started, 3)


def prepare(
    settings: DataSettings,
    items: Given,
    clicks: Given = (),
    images: Given = (),
    queries: Given = (),
    test_from: date | datetime | None = None,
    out: StrPath = "dataset",
    engine: str = "duckdb",
    spark_master: str | None = None,
    runner: str = "local",
) -> PrepareSummary:
    """Build the dataset folder `out` from the user's tables.

        prepare(DataSettings(text_fields=("title",), slice_columns=()), frame, "log/*.csv")

    Args:
        settings: the section ``data`` of the configuration.
        items: files, folders, globs, addresses or tables in memory (pyarrow, pandas, polars), which are one table.
        clicks: the log or the pairs, likewise.
        images: pictures in a table of their own.
        queries: attributes of queries.
        test_from: first moment of the test period.
        out: the dataset.
        engine: what makes pairs, qrels and rejects of the log: duckdb or spark, see docs/scale.md.
        spark_master: which Spark, such as ``spark://host:7077``; None: the one that Spark's configuration names.
        runner: who decodes the pictures: `local` or `ray`. Parts of `prepare_pictures` are taken as they are.

    Raises:
        InputError: a table, the settings, the date, `out` or `engine` is wrong; `out` is then as it was before.
    """
    if engine not in ENGINES:
        raise one_of(engine, ENGINES, "an engine of `smar prepare`")
    if spark_master is not None and engine != "spark":
        raise InputError(f"--spark-master {spark_master} is for --engine spark; the engine is {engine}.")
    out = Path(out)
    _check_out(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    work = partial / "work"
    work.mkdir(parents=True)
    summary = PrepareSummary(out)
    decode = decoder_of(pictures_folder(out), runner)
    try:
        with _spark(engine, spark_master) as spark, connect(settings, work) as con:
            given = {"items": items, "clicks": clicks, "images": images, "queries": queries}
            settings = _build(con, Tables.of(con, settings, given, work), test_from, partial, summary, decode, spark)
        shutil.rmtree(work)
        with summary.stage("checksums"):
            _write_manifest(settings, partial, summary)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    publish(partial, out)
    if decode is not decode_here:
        shutil.rmtree(pictures_folder(out), ignore_errors=True)
    return summary


def _spark(engine: str, master: str | None) -> AbstractContextManager[Any]:
    """A Spark session; None for DuckDB."""
    if engine == "duckdb":
        return nullcontext()
    from smar.data.spark import session

    return session(master)


def pictures_folder(out: Path) -> Path:
    """Where parts of the pictures wait for the dataset `out`."""
    return out.with_name(out.name + ".pictures")


def prepare_pictures(
    settings: DataSettings,
    part: Part,
    items: Given,
    clicks: Given = (),
    images: Given = (),
    queries: Given = (),
    out: StrPath = "dataset",
    runner: str = "local",
) -> bool:
    """Decode one part of the pictures, for a `prepare` of the same tables and settings that takes them.

        prepare_pictures(DataSettings(), Part(3, 16), "items.parquet", out="dataset")

    Any number of processes may make parts at once, on machines that share the folder of `out`. The log is not read.

    Returns:
        Whether the part was made now, and not before.

    Raises:
        InputError: as `prepare`; or ``OUT.pictures`` holds parts of other tables, settings or of another number.
    """
    out = Path(out)
    _check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.part-", dir=out.parent) as folder:
        work = Path(folder)
        with connect(settings, work) as con:
            given = {"items": items, "clicks": clicks, "images": images, "queries": queries}
            tables = Tables.of(con, settings, given, work)
            catalogue = tables.open("items", ("item_id", "title", *tables.settings.text_fields))
            item_columns(catalogue, tables.settings)
            pictures = tables.open_optional("images", None)
            build_items(con, catalogue, tables.settings)
            listing = list_pictures(con, catalogue, pictures, tables.settings)
            store = pictures_folder(out)
            return decode_part(listing, (catalogue, pictures), tables.settings, work, store, part, runner)


def _check_out(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    manifest = out / "manifest.json"
    if not manifest.is_file() or f'"{FORMAT}"' not in manifest.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"--out {out} exists and is no smar dataset; it is left alone. Give another folder.")


def _build(
    con: Connection,
    tables: Tables,
    test_from: date | datetime | None,
    folder: Path,
    summary: PrepareSummary,
    decode: Decode,
    spark: Any,
) -> DataSettings:
    """Run the stages; returns the settings as applied."""
    settings = tables.settings
    with summary.stage("reading tables"):
        check_format(con, settings.date_format)
        catalogue = tables.open("items", ("item_id", "title", *settings.text_fields))
        columns = item_columns(catalogue, settings)
        log = tables.open("clicks", None)
        check_mapping(log)
        pictures = tables.open_optional("images", None)
        attributes = tables.open_optional("queries", ("query",))
        check_types(settings, catalogue, attributes)
        build_items(con, catalogue, settings)
    summary.notes += [*columns.notes, *tables.notes]
    with summary.stage("pairs"):
        engine = _engine(con, log, folder, spark)
        counted = build_pairs(engine, log, settings, test_from, folder)
    summary.notes += counted.notes
    if attributes is not None:
        summary.counts["queries"] = write_queries(con, attributes, settings, folder / "queries.parquet")
    with summary.stage("pictures"):
        packed = pack(con, catalogue, pictures, settings, folder, decode)
    summary.notes += packed.notes
    with summary.stage("items and rejects"):
        write_items(con, catalogue, columns, folder / "items.parquet")
        _write_rejects(con, engine, (catalogue, log, pictures, attributes), bool(counted.rejected), folder, summary)
    if prices := unread_prices(con, catalogue):
        summary.notes.append(prices)
    _count(con, catalogue, log, counted, packed, summary)
    return _with_language(applied_format(columns.settings, catalogue), folder, summary)


def _engine(con: Connection, log: Table, folder: Path, spark: Any) -> Any:
    """What the log is given to: the database that has the items, or Spark beside it."""
    if spark is None:
        return con
    from smar.data.spark import Spark

    return Spark(spark, con, log, folder / "work")


def _with_language(settings: DataSettings, folder: Path, summary: PrepareSummary) -> DataSettings:
    """The language named, where it was left to a guess: by titles and training queries from all over the tables."""
    if settings.language != AUTO:
        return settings
    texts = [
        pq.read_table(folder / file, columns=[column])[column].to_pylist()
        for file, column in (("items.parquet", "title"), ("pairs/train.parquet", "query"))
    ]
    found = guess_language([text for some in texts for text in some[:: max(1, len(some) // _READ)][:_READ]])
    summary.language = f"{found.stemmer or 'no stemmer'} ({found.reason}); --set data.language=... says otherwise"
    return settings.model_copy(update={"language": found.stemmer})


def _write_rejects(
    con: Connection,
    engine: Any,
    tables: tuple[Table | None, ...],
    log: bool,
    folder: Path,
    summary: PrepareSummary,
) -> None:
    """Write rejects.parquet; `log` says whether the log has any (if not, it is not read again)."""
    for table in tables:
        for key, reason in table.bad_lines if table else ():
            con.execute("INSERT INTO reject VALUES (?, -1, ?, ?)", [table.kind if table else "", key, reason])
    if engine is not con:
        engine.share("reject")
    set_variables(engine, log_rejects=log)
    path = folder / "rejects.parquet"
    copy(engine, script("rejects"), path)
    counted = con.execute(
        """SELECT "table" || ': ' || CASE WHEN row < 0 THEN 'unreadable line' ELSE split_part(reason, ': ''', 1) END,
        count(*)
        FROM read_parquet($1) GROUP BY 1 ORDER BY 1""",
        [str(path)],
    ).fetchall()
    summary.rejects = dict(counted)


def _count(
    con: Connection,
    catalogue: Table,
    log: Table,
    counted: LogCounts,
    packed: PictureCounts,
    summary: PrepareSummary,
) -> None:
    summary.counts = {
        "items": number(con, "SELECT count(*) FROM item"),
        "item_rows": catalogue.rows,
        "log_rows": log.rows,
        "clicks": counted.positives,
        **{f"pairs_{part}": rows for part, rows in counted.pairs.items()},
        **{f"clicks_{part}": rows for part, rows in counted.clicks.items()},
        "seen_in_train": counted.seen_in_train,
        "dropped_clicks": counted.dropped_clicks,
        **({} if counted.irrelevant is None else {"judged_irrelevant": counted.irrelevant}),
        **summary.counts,
        "pictures": packed.listed,
        "pictures_tried": packed.tried,
        "images_packed": packed.packed,
        **packed.several,
        "rejects": sum(summary.rejects.values()),
    }
    summary.image_status = packed.item_status
    summary.test_from, summary.valid_from = counted.split.test_from, counted.split.valid_from
    if counted.split.note:
        summary.notes.append(counted.split.note)


def _write_manifest(settings: DataSettings, folder: Path, summary: PrepareSummary) -> None:
    DatasetManifest(
        counts=summary.counts,
        image_status=summary.image_status,
        settings=settings.model_dump(mode="json"),
        test_from=summary.test_from,
        valid_from=summary.valid_from,
        image_size=settings.image_size,
        files=describe(folder, FileEntry.of),
    ).write(folder)
