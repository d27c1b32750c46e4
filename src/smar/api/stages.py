"""The stages from tables to a report, as functions; the commands of the same names call them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from smar.api.loaded import Encoder, load
from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.core.progress import console
from smar.core.sections.data import DataSettings
from smar.core.settings import Config, load_settings
from smar.data.dataset import Dataset
from smar.data.prepare import PrepareSummary, prepare_pictures
from smar.data.prepare import prepare as prepare_tables
from smar.data.sources import Given
from smar.embedding.embed import EmbedSummary, PartSummary, embed_part
from smar.embedding.embed import embed as embed_items
from smar.evaluation.evaluate import EvaluateSummary, evaluate_runs
from smar.model.device import all_devices
from smar.model.framing import read_framing
from smar.model.run_folder import load_encoder
from smar.runners.run import Part
from smar.storage.copies import with_copies
from smar.training.callbacks import Callback
from smar.training.recipe import propose
from smar.training.train import TrainSummary
from smar.training.train import train as train_run
from smar.training.warm_start import warm_settings

if TYPE_CHECKING:
    import pandas


def prepared(
    tables: Mapping[str, Given],
    out: StrPath,
    config: Config = None,
    assignments: Sequence[str] = (),
    pictures_for: str | None = None,
    test_from: date | datetime | None = None,
    engine: str = "duckdb",
    spark_master: str | None = None,
    runner: str = "local",
) -> PrepareSummary:
    """As `prepare`, and what was counted; `tables` are its first four arguments by name."""
    settings = _data_settings(config, assignments, pictures_for)
    return prepare_tables(
        settings, **tables, test_from=test_from, out=out, engine=engine, spark_master=spark_master, runner=runner
    )


def pictures_prepared(
    tables: Mapping[str, Given],
    out: StrPath,
    part: Part,
    config: Config = None,
    assignments: Sequence[str] = (),
    pictures_for: str | None = None,
    runner: str = "local",
) -> bool:
    """One part of the pictures, for a `prepared` of the same tables and settings; whether it was made now."""
    return prepare_pictures(_data_settings(config, assignments, pictures_for), part, **tables, out=out, runner=runner)


def _data_settings(config: Config, assignments: Sequence[str], pictures_for: str | None) -> DataSettings:
    framing = [] if pictures_for is None else read_framing(pictures_for).assignments()
    return load_settings(config, [*framing, *assignments]).data


@with_copies
def prepare(
    items: Given,
    clicks: Given = (),
    images: Given = (),
    queries: Given = (),
    *,
    out: StrPath = "dataset",
    config: Config = None,
    assignments: Sequence[str] = (),
    pictures_for: str | None = None,
    test_from: date | datetime | str | None = None,
    engine: str = "duckdb",
    spark_master: str | None = None,
    runner: str = "local",
) -> Dataset:
    """Make a dataset of a shop's tables (`smar prepare`; docs/data.md says what they hold).

    >>> import smar
    >>> tables = {"items": "shop/items.parquet", "clicks": "shop/clicks.parquet"}
    >>> smar.prepare(**tables, out="small", config="tiny.yaml").items.num_rows
    300

    Args:
        items: the catalogue: a table of pandas, polars or pyarrow, a path, a glob or an address, or a list of these.
        clicks: the search log, likewise, as all that follow.
        images: pictures in a table of their own.
        queries: attributes of queries.
        out: folder of the dataset; one that is there is replaced.
        config: a YAML file, its content as a mapping, or `Settings`.
        assignments: texts ``data.key=value``, as ``--set`` takes them.
        pictures_for: a checkpoint whose image processor says how pictures become squares.
        test_from: first moment of the test period.
        engine: what makes pairs of the log: duckdb or spark (docs/scale.md).
        spark_master: which Spark, such as ``local[4]``; None: the one that Spark's configuration names.
        runner: who decodes the pictures: `local` or `ray` (docs/scale.md).

    Raises:
        InputError: a table, the settings, the date or `out` is wrong; `out` is then as it was before.
    """
    tables = {"items": items, "clicks": clicks, "images": images, "queries": queries}
    start = _moment(test_from) if isinstance(test_from, str) else test_from
    done = prepared(tables, out, config, assignments, pictures_for, start, engine, spark_master, runner)
    return Dataset.open(done.out)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"test_from is {text!r}, which is no date such as 2026-09-27.") from None


@dataclass(frozen=True)
class Run:
    """A trained model with its baselines: the folder `path`, and what training did (`summary`).

    >>> import smar
    >>> run = smar.train("dataset", out="run", config="tiny.yaml")
    >>> [stage.stage for stage in run.summary.stages if stage.kind == "smar"]
    ['stage1', 'stage2']
    >>> run.encoder("dpsr").kind
    'dpsr'
    """

    path: Path
    summary: TrainSummary

    def encoder(self, baseline: str | None = None, device: str = "auto") -> Encoder:
        """The model, or a baseline by its name; see `load`."""
        return load(self.path, baseline, device)


@with_copies
def train(
    dataset: Dataset | StrPath,
    out: StrPath = "run",
    config: Config = None,
    *,
    callbacks: Sequence[Callback] = (),
    source: "Run | StrPath | None" = None,
    assignments: Sequence[str] = (),
    device: str = "auto",
) -> Run:
    """Train a model and its baselines, or finish what was interrupted (`smar train`, docs/training.md).

    >>> import smar
    >>> losses = []
    >>> run = smar.train("dataset", out="run", config="tiny.yaml", callbacks=[losses.append])

    Args:
        dataset: of `prepare`, or its folder.
        out: folder of the run.
        config: a YAML file, its content as a mapping, or `Settings`; a look at the dataset says the rest.
        callbacks: a `transformers.TrainerCallback`, or a function that is given each log as a dict: `model`, `stage`,
            `step` and the figures by name. Each hears of every stage of every model that is trained now.
        source: a finished run to go on from (``--from``).
        assignments: texts ``section.key=value``, as ``--set`` takes them.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: the configuration is wrong, or `out` belongs to another one or to another dataset.
        TrainingError: a loss is no number or explodes, or the memory is too small.
    """
    opened = _opened(dataset)
    data, source = opened.manifest.settings, _folder(source) if source is not None else None
    if source is None:
        base, told = propose(opened, load_settings(config, assignments, data=data))
        for line in told:
            console.print(line, markup=False, soft_wrap=True)
    else:
        base = warm_settings(source)
    settings = load_settings(config, assignments, data=data, base=base)
    return Run(Path(out), train_run(opened, out, settings, source, device, callbacks))


@dataclass(frozen=True)
class Report:
    """Figures of models: the folder `path` with tables, charts and `report.md`, and `summary`, what is in them.

    polars and pyarrow take it as a table (``polars.DataFrame(report)``, ``pyarrow.table(report)``).

    >>> import smar
    >>> report = smar.evaluate(["run"], "dataset", out="report")
    >>> report.table.column_names[:4]
    ['model', 'slice', 'metric', 'value']
    >>> report.to_pandas().query("slice == 'all' and metric == 'MRR'").model.tolist()[:2]
    ['bm25', 'dpsr']
    """

    path: Path
    summary: EvaluateSummary

    @property
    def table(self) -> pa.Table:
        """Every figure of a model as a row: model, slice, metric, value, its interval, queries, seeds."""
        return pa.Table.from_pylist([asdict(row) for row in self.summary.rows])

    def to_pandas(self) -> "pandas.DataFrame":
        """`table` as a DataFrame; raises InputError where pandas is not installed."""
        try:
            return cast("pandas.DataFrame", self.table.to_pandas())
        except ImportError:
            raise InputError("to_pandas needs pandas: pip install pandas, or take report.table.") from None

    def __arrow_c_stream__(self, requested_schema: Any = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


@with_copies
def evaluate(
    runs: "Run | StrPath | Sequence[Run | StrPath]",
    dataset: Dataset | StrPath,
    out: StrPath = "report",
    *,
    qrels: StrPath | None = None,
    names: Sequence[str] = (),
    trec_runs: Sequence[tuple[str, StrPath]] = (),
    topics: StrPath | None = None,
    assignments: Sequence[str] = (),
    device: str = "auto",
    runner: str = "local",
) -> Report:
    """Rank the catalogue for every test query by each model and write a report (`smar evaluate`, docs/evaluation.md).

    See `Report` for an example.

    Args:
        runs: of `train`, or their folders; the first one's settings count.
        dataset: of `prepare`, or its folder.
        out: folder of the report.
        qrels: judgements; test clicks when not given.
        names: what the runs are called in the report.
        trec_runs: (name, TREC run file) of other systems.
        topics: file of lines `id query`: what TREC files call the queries.
        assignments: texts ``evaluate.key=value``.
        device: `auto`, `cpu` or `cuda`.
        runner: who encodes the items: `local` or `ray` (docs/scale.md).

    Raises:
        InputError: a run is unfinished, or judgements or rankings do not fit the dataset.
    """
    several = [runs] if isinstance(runs, Run | str | Path) else runs
    folders, data = [_folder(run) for run in several], dataset.path if isinstance(dataset, Dataset) else dataset
    judged = None if qrels is None else str(qrels)
    done = evaluate_runs(folders, data, out, judged, names, assignments, trec_runs, topics, device, runner)
    return Report(Path(out), done)


@with_copies
def embed(
    run: Run | StrPath,
    dataset: Dataset | StrPath,
    out: StrPath = "embeddings",
    device: str = "auto",
    runner: str = "local",
) -> Path:
    """Encode the catalogue of a dataset for `Index.build`, or finish what was interrupted (`smar embed`).

    `runner` is `local` or `ray` (docs/scale.md).

    >>> import smar
    >>> index = smar.Index.build(smar.embed("run", "dataset", out="embeddings"), out="index")

    Raises:
        InputError: `out` holds vectors of another model or dataset.
    """
    embedded(run, dataset, out, device, runner)
    return Path(out)


def embedded(
    run: Run | StrPath, dataset: Dataset | StrPath, out: StrPath, device: str, runner: str = "local"
) -> EmbedSummary:
    """As `embed`, and what was counted."""
    how = _how(device, runner)
    return embed_items(load_encoder(_folder(run)), _opened(dataset), out, **how)


def part_embedded(
    run: Run | StrPath, dataset: Dataset | StrPath, out: StrPath, device: str, runner: str, part: Part
) -> PartSummary:
    """One part of `embedded`, which then finds its shards."""
    how = _how(device, runner)
    return embed_part(load_encoder(_folder(run)), _opened(dataset), out, part, **how)


def _how(device: str, runner: str) -> dict[str, Any]:
    """The devices of this machine; with Ray, those of the node on which a task runs."""
    return {"devices": all_devices(device) if runner == "local" else [device], "runner": runner}


def _opened(dataset: Dataset | StrPath) -> Dataset:
    return dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)


def _folder(run: Run | StrPath) -> Path:
    return run.path if isinstance(run, Run) else Path(run)
