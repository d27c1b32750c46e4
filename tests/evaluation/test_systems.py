"""Controls on a real tiny run: each is what its name says. Names clash with nothing."""

import numpy as np
import pytest

from smar.data.bm25 import Bm25
from smar.data.dataset import Dataset
from smar.data.voices import query_features
from smar.evaluation.encoded_items import encode_catalogue
from smar.evaluation.metrics import per_query, read_judgements
from smar.evaluation.scores import Rankings, Task, mix, rank
from smar.evaluation.systems import (
    CONTROLS,
    RankedRun,
    System,
    name_systems,
    rank_run,
    shuffled_rows,
)
from smar.model.run_folder import load_encoder
from tiny_line import Line

K, DEPTH = 20, 40


@pytest.fixture(scope="module")
def dataset(line: Line) -> Dataset:
    return Dataset.open(line.dataset)


@pytest.fixture(scope="module")
def task(dataset: Dataset) -> tuple[list[str], Task]:
    judged = read_judgements(dataset.qrels(), dataset.items["item_id"])
    return judged.queries, Task(judged.relevance, K, DEPTH, np.arange(0, len(judged.relevance.items), 3))


@pytest.fixture(scope="module")
def ranked(line: Line, dataset: Dataset, task: tuple[list[str], Task]) -> RankedRun:
    return rank_run(line.run, "smar", dataset, *task, controls=True)


def test_gate_controls_are_their_scores(
    line: Line, dataset: Dataset, task: tuple[list[str], Task], ranked: RankedRun
) -> None:
    encoder = load_encoder(line.run)
    items, (query, p) = encode_catalogue(encoder, dataset, "smar"), encoder.encode_queries(task[0])
    text, multimodal, image = (query @ x.T for x in (items.text, items.multimodal, items.image))
    middle = float(np.median(p))
    want = {
        "text": text,
        "multimodal": multimodal,
        "image": image,
        "route": np.where(p[:, None] > encoder.config.threshold, multimodal, text),
    }
    for name, scores in want.items():
        np.testing.assert_array_equal(ranked.others[name].ranking, rank(scores, DEPTH), err_msg=name)
    np.testing.assert_array_equal(ranked.others["two-way"].ranking, rank(mix(p[:, None], text, multimodal), DEPTH))
    assert encoder.voices is not None
    bm25 = Bm25([" ".join(texts) for texts in zip(*dataset.fields(dataset.text_fields), strict=True)], dataset.language)
    shares = encoder.voices.shares(query_features(task[0], bm25, encoder.voices.known, p)).astype(np.float32)
    words = np.stack([bm25.scores(each) for each in task[0]]) / np.float32(bm25.unit)
    blended = shares[:, :1] * words + shares[:, 1:2] * text + shares[:, 2:] * multimodal
    np.testing.assert_array_equal(ranked.own.ranking, rank(blended, DEPTH))
    np.testing.assert_allclose(ranked.probability, p)
    assert ((p > middle).any(), (p <= middle).any()) == (True, True)


def test_the_oracle_is_the_better_of_the_two_per_query(ranked: RankedRun, task: tuple[list[str], Task]) -> None:
    text, multimodal, oracle = (
        per_query(ranked.others[name].ranking, task[1].relevance, K).recall
        for name in ("text", "multimodal", "oracle-gate")
    )
    np.testing.assert_array_equal(oracle, np.maximum(text, multimodal))
    assert oracle.mean() >= max(text.mean(), multimodal.mean())


def test_pictures_are_dealt_out_among_those_that_have_one(dataset: Dataset) -> None:
    rows = dataset.image_row
    shuffled = shuffled_rows(rows)
    assert ((shuffled < 0) == (rows < 0)).all()
    assert (rows < 0).any()
    assert sorted(shuffled) == sorted(rows)
    assert (shuffled != rows)[rows >= 0].mean() > 0.95
    np.testing.assert_array_equal(shuffled_rows(rows), shuffled)


def test_without_pictures_every_item_shows_the_null_token(line: Line, dataset: Dataset) -> None:
    encoder = load_encoder(line.run)
    whole = encode_catalogue(encoder, dataset, "own")
    none = encode_catalogue(encoder, dataset, "none", np.full_like(dataset.image_row, -1))
    np.testing.assert_allclose(none.text, whole.text, atol=1e-4)  # other batches
    assert np.abs(none.image - none.image[0]).max() < 1e-6
    without = dataset.image_row < 0
    np.testing.assert_allclose(none.multimodal[without], whole.multimodal[without], atol=2e-2)


def test_a_words_only_model_has_one_vector_an_item_and_no_controls(
    line: Line, dataset: Dataset, task: tuple[list[str], Task]
) -> None:
    catalogue = encode_catalogue(load_encoder(line.run, "dpsr"), dataset, "dpsr")
    assert catalogue.multimodal is catalogue.text


def test_controls_can_be_left_out(
    line: Line, dataset: Dataset, task: tuple[list[str], Task], ranked: RankedRun
) -> None:
    few = rank_run(line.run, "smar", dataset, *task, controls=False)
    assert [*few.others] == ["dpsr", "dpsr-i", "multimodal", "two-way"]
    assert {*ranked.others} == {*few.others, *CONTROLS}
    np.testing.assert_array_equal(few.own.ranking, ranked.own.ranking)


def run(name: str, *others: str) -> RankedRun:
    empty = Rankings(np.zeros((0, 1), np.int64), np.zeros(0, np.int64))
    return RankedRun(name, empty, dict.fromkeys(others, empty), None, 0.5)


def test_names_are_plain_where_they_are_unique() -> None:
    bm25 = System("bm25", run("x").own, None)
    alone = name_systems([run("smar", "dpsr", "multimodal", "text", "oracle-gate")], [bm25])
    assert [s.name for s in alone] == ["bm25", "dpsr", "multimodal", "smar", "text", "oracle-gate"]
    assert [s.control for s in alone] == [False] * 4 + [True] * 2
    assert [s.bound for s in alone] == [False] * 5 + [True]
    two = name_systems([run("dpsr", "dpsr", "text"), run("b", "dpsr", "text", "concat")], [bm25])
    assert [s.name for s in two] == ["bm25", "dpsr/dpsr", "dpsr", "b/dpsr", "concat", "b", "dpsr/text", "b/text"]
    assert len({s.name for s in two}) == len(two)
