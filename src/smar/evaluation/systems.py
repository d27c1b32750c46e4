"""The rows of a report: a run's own model, its baselines, and the controls (docs/paper.md, "Controls").

Where words are a voice of the run's own model, `two-way` is its published gate, between text and multimodal vectors
alone, and `vectors` what a model with one vector an item finds by it.
Controls, all of the run's own model:
    text           words only: the gate held at 0
    multimodal     pictures always: the gate held at 1
    image          the picture's own vectors
    route          a hard gate: p > threshold asks the multimodal vectors, else the text vectors
    random-gate    the run's own gate values dealt out to other queries: what is the gate's *aim* worth?
    oracle-gate    per query the better of text and multimodal by recall: an upper bound, no model
    shuffled       every item shows another item's picture: is it the picture that helps?
    no-pictures    every item is encoded without its picture
The last two are gated as the run is, and cost a pass over the catalogue each.

A model that began from pretrained weights also has a row for what it was before the first step, made of the
checkpoints again: `zero-shot` is the run's own, `zero-shot-NAME` a baseline's. Of equal ones the first stands for all.
Beside BM25 `hybrid` is it and the words-only model (DPSR), fused by reciprocal ranks, and `hybrid-zero-shot` it and
what the run's own model was before the first step: what a shop has without training, or without pictures.
A run that went on from another one has the row `predecessor`, that run's own model.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from smar.core.errors import InputError
from smar.core.progress import console
from smar.data.bm25 import Bm25
from smar.data.dataset import Dataset
from smar.data.voices import query_features
from smar.evaluation.encoded_items import HERE, Place, Start, encode_catalogue
from smar.evaluation.metrics import Floats as Doubles
from smar.evaluation.metrics import Integers, per_query
from smar.evaluation.scores import Catalogue, Rankings, Task, Voiced, choose, mixed_blocks, rank_blocks, shortened
from smar.evaluation.word_baseline import HYBRID, with_hybrid
from smar.model.encoder import Encoder, Floats
from smar.model.quiet import quiet
from smar.model.run_folder import RunManifest, baselines, find_parent, load_encoder
from smar.model.start import start_key

ALWAYS, ORACLE, ZERO_SHOT, PREDECESSOR = "multimodal", "oracle-gate", "zero-shot", "predecessor"
TWO_WAY, VECTORS, WORDS_ONLY = "two-way", "vectors", "text"
_OURS = (ZERO_SHOT, HYBRID)
CONTROLS = (WORDS_ONLY, "image", "route", "random-gate", ORACLE, "shuffled", "no-pictures")
"""Controls beside `multimodal`, which stands among the models."""
_ALL, _NONE = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)


@dataclass(frozen=True)
class RankedRun:
    """A run's own model, its baselines and controls by name, its gate's probabilities [n_queries] (None: no gate).

    `absent`: rows of what the run began from that are not there, and why.
    """

    name: str
    own: Rankings
    others: Mapping[str, Rankings]
    probability: Doubles | None
    threshold: float
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """A row of the report under its final name; `run` is the run's name, None for a model of no run."""

    name: str
    ranked: Rankings
    run: str | None
    control: bool = False
    bound: bool = False
    """An upper bound that no model reaches: shown, never compared."""
    mean_of: tuple[str, ...] = ()
    """Rows of several seeds that this one is the mean of; `ranked` is the first one's."""

    @property
    def kind(self) -> str:
        """The name without the run's: "dpsr", "shuffled"; "" for a run's own model."""
        return "" if self.name == self.run else self.name.rpartition("/")[2]


def _encode(
    encoder: Encoder,
    dataset: Dataset,
    what: str,
    queries: Sequence[str],
    dim: int | None,
    place: Place,
    start: Start | None = None,
) -> tuple[Floats, Floats, Catalogue]:
    """Query vectors [q, dim], the gate's probabilities [q], and the catalogue."""
    embedding, p = encoder.encode_queries(queries)
    return shortened(embedding, dim), p, encode_catalogue(encoder, dataset, what, place=place, start=start).cut(dim)


def shuffled_rows(image_row: Integers, seed: int = 0) -> Integers:
    """The pictures' rows [n] dealt out anew among the items that have a picture (-1 stays -1)."""
    shuffled = image_row.copy()
    shown = image_row >= 0
    shuffled[shown] = np.random.default_rng(seed).permutation(image_row[shown])
    return shuffled


def rank_run(
    run: Path,
    name: str,
    dataset: Dataset,
    queries: Sequence[str],
    task: Task,
    controls: bool,
    given: Collection[Path] = (),
    place: Place = HERE,
    bm25: Bm25 | None = None,
) -> RankedRun:
    """Rank with the run's baselines, with what its models began from and became, and its controls.

    `given`: the runs of the report, which stand there by themselves; `place`: what encodes; `bm25`: what hybrid rows
    fuse with vectors, None for no such rows.
    """
    others, absent = _starts(run, dataset, queries, task, given, place, bm25)
    for baseline in baselines(run):
        encoder = load_encoder(run, baseline, place.device)
        embedding, p, catalogue = _encode(encoder, dataset, baseline, queries, task.dim, place)
        taken = baseline in (ALWAYS, PREDECESSOR, TWO_WAY, VECTORS, *CONTROLS) or baseline.startswith(_OURS)
        free = f"{baseline}-baseline" if taken else baseline
        blocks = mixed_blocks(embedding, catalogue, {free: p[:, None]})
        fused = bm25 if encoder.config.kind == "dpsr" and HYBRID not in others else None
        others |= rank_blocks(with_hybrid(blocks, free, HYBRID, fused, queries), task)
    encoder = load_encoder(run, device=place.device)
    embedding, p, catalogue = _encode(encoder, dataset, name, queries, task.dim, place)
    # a model without a gate of its own has it fixed at exactly 0 or 1
    gated = not np.isin(p, (0, 1)).all()
    voiced = voices_of(encoder, dataset, queries, p)
    gates = _gates(p, encoder.config.threshold, gated, controls)
    if voiced is not None:
        gates[TWO_WAY if encoder.config.kind == "smar" else VECTORS] = gates.pop("")
    blocks, words = mixed_blocks(embedding, catalogue, gates, named("", voiced)), encoder.config.kind == "dpsr"
    own = rank_blocks(with_hybrid(blocks, next(iter(gates)), HYBRID, bm25 if words else None, queries), task)
    if gated and controls:
        own[ORACLE] = _oracle(own[WORDS_ONLY], own[ALWAYS], task)
    if controls and catalogue.multimodal is not catalogue.text:
        own |= _picture_controls(encoder, dataset, embedding, p[:, None], voiced, catalogue, task, place)
    main = own.pop("")
    probability = p.astype(np.float64) if gated else None
    return RankedRun(name, main, others | own, probability, encoder.config.threshold, absent)


def named(name: str, voiced: Voiced | None) -> dict[str, Voiced]:
    """The shares under the name of a row; nothing where there are none."""
    return {} if voiced is None else {name: voiced}


def voices_of(encoder: Encoder, dataset: Dataset, queries: Sequence[str], p: Floats) -> Voiced | None:
    """Words beside the run's vectors; None where they were not fitted."""
    if encoder.voices is None:
        return None
    fields = dataset.fields(tuple(encoder.config.text_fields))
    index = Bm25.of_fields(fields, dataset.language)
    return Voiced(encoder.voices.shares(query_features(queries, index, encoder.voices.known, p)), queries, index)


def _starts(
    run: Path,
    dataset: Dataset,
    queries: Sequence[str],
    task: Task,
    given: Collection[Path],
    place: Place,
    bm25: Bm25 | None,
) -> tuple[dict[str, Rankings], dict[str, str]]:
    """What the run's models began from, where there is such a thing; and, row by row, why it cannot be shown."""
    ranked: dict[str, Rankings] = {}
    absent: dict[str, str] = {}
    seen: set[str] = set()
    starts: dict[str, Callable[[], Encoder | None]] = {ZERO_SHOT: Start(run.absolute(), None)}
    starts |= {f"{ZERO_SHOT}-{baseline}": Start(run.absolute(), baseline) for baseline in baselines(run)}
    starts[PREDECESSOR] = partial(predecessor, run, dataset, given)
    for name, load in starts.items():
        try:
            with quiet():
                encoder = load()
        except InputError as error:
            console.print(f"no row {name}: {error}", markup=False, soft_wrap=True)
            absent[name] = str(error)
            continue
        if encoder is None or (key := PREDECESSOR if name == PREDECESSOR else start_key(encoder)) in seen:
            continue
        seen.add(key)
        encoder.model.to(place.device)
        start = load if isinstance(load, Start) else None
        embedding, p, catalogue = _encode(encoder, dataset, name, queries, task.dim, place, start)
        voiced = voices_of(encoder, dataset, queries, p)  # nothing was fitted before training
        gates = {name: p[:, None] if name == PREDECESSOR else _ALL} if voiced is None else {}
        blocks = mixed_blocks(embedding, catalogue, gates, named(name, voiced))
        fused = bm25 if name == ZERO_SHOT else None
        ranked |= rank_blocks(with_hybrid(blocks, name, f"{HYBRID}-{ZERO_SHOT}", fused, queries), task)
    return ranked, absent


def predecessor(run: Path, dataset: Dataset, given: Collection[Path]) -> Encoder | None:
    """Model of the run that this one went on from; None where there is none, or it is `given` anyway.

    Raises:
        InputError: it does not lie beside the run as it was, or reads item columns that the dataset lacks.
    """
    parent = RunManifest.read(run, "smar train").parent
    if parent is None:
        return None
    if (folder := find_parent(run)) is None:
        raise InputError(f"no run {parent.name} with the model {parent.fingerprint} lies beside {run.name}.")
    if folder in {path.resolve() for path in given}:
        return None
    encoder = load_encoder(folder)
    if missing := [name for name in encoder.config.text_fields if name not in dataset.items.column_names]:
        raise InputError(f"{parent.name} reads the item columns {', '.join(missing)}, which this dataset lacks.")
    return encoder


def _gates(p: Floats, threshold: float, gated: bool, controls: bool) -> dict[str, Floats]:
    """p of the run's own model ("") and of the controls that only hold the gate in another way."""
    gates = {"": p[:, None]}
    if gated:
        gates[ALWAYS] = _ALL
    if gated and controls:
        gates[WORDS_ONLY] = _NONE
        gates["route"] = (p[:, None] > threshold).astype(np.float32)
        gates["random-gate"] = np.random.default_rng(0).permutation(p)[:, None]
    return gates


def _picture_controls(
    encoder: Encoder,
    dataset: Dataset,
    query: Floats,
    p: Floats,
    voiced: Voiced | None,
    catalogue: Catalogue,
    task: Task,
    place: Place,
) -> dict[str, Rankings]:
    """`image`, `shuffled` and `no-pictures`; p is [n_queries, 1]."""
    ranked = rank_blocks(mixed_blocks(query, catalogue.pictures_only(), {"image": _ALL}), task)
    rows = {"shuffled": shuffled_rows(dataset.image_row), "no-pictures": np.full_like(dataset.image_row, -1)}
    for name, row in rows.items():
        other = encode_catalogue(encoder, dataset, name, row, place).cut(task.dim)
        blocks = mixed_blocks(query, other, {name: p} if voiced is None else {}, named(name, voiced))
        ranked |= rank_blocks(blocks, task)
    return ranked


def _oracle(text: Rankings, multimodal: Rankings, task: Task) -> Rankings:
    """Per query the answer with the higher recall at the task's k."""
    recall = [per_query(ranked.ranking, task.relevance, task.k) for ranked in (text, multimodal)]
    better = np.zeros(len(text.ranking), dtype=bool)
    better[recall[0].rows] = recall[1].recall > recall[0].recall
    return choose(better, multimodal, text, task)


def name_systems(runs: Sequence[RankedRun], first: Iterable[System] = ()) -> list[System]:
    """Every row with a name of its own: `first`, then per run baselines, `multimodal`, the run itself; controls last.

    A baseline or control goes by its plain name where only one run has it, else by RUN/NAME.
    """
    systems = list(first)
    plain = [name for run in runs for name in run.others]
    taken = {run.name for run in runs} | {system.name for system in systems}
    controls: list[System] = []
    for run in runs:
        for name, ranked in run.others.items():
            clash = plain.count(name) > 1 or name in taken
            full = f"{run.name}/{name}" if clash else name
            control = name in CONTROLS
            row = System(full, ranked, run.name, control, bound=name == ORACLE)
            (controls if control else systems).append(row)
        systems.append(System(run.name, run.own, run.name))
    return systems + sorted(controls, key=lambda row: CONTROLS.index(row.name.rpartition("/")[2]))
