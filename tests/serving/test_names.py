"""Names of modes and the like are taken as text and refused when unknown; paths are taken as text, too."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smar.core.errors import InputError, member
from smar.core.files import Manifest
from smar.data.dataset import Dataset
from smar.data.images import ImageOptions
from smar.search.embeddings import Embeddings
from smar.search.local.live import UpdatableIndex
from smar.search.local.open_version import EmbeddedIndex
from smar.search.protocol import Mode, weigh, widen
from smar.search.query import Precision, QueryEncoder, QueryVectors
from smar.serving.engine import Engine
from smar.serving.question import Question, RequestError

MODES = "allowed: adaptive, hybrid, multimodal, route, text"
VECTORS = QueryVectors(np.eye(4, dtype=np.float32)[:2], np.array([0.2, 0.9], np.float32))


@pytest.mark.parametrize("mode", list(Mode))
def test_a_mode_by_its_name_is_that_mode(engine: Engine, mode: Mode) -> None:
    by_name, by_member = (engine.search("red shirt", 5, given, explain=True) for given in (mode.value, mode))
    assert type(by_name.mode) is Mode
    assert by_name.hits == by_member.hits
    (many,) = engine.search_many(["red shirt"], 5, mode.value)
    assert [(hit.item_id, hit.score) for hit in many] == [(hit.item_id, hit.score) for hit in by_member.hits]
    (found,) = engine.answer([Question("red shirt", 5, mode.value)])  # type: ignore[arg-type]
    assert isinstance(found, type(by_member))
    assert [hit.score for hit in found.hits] == [hit.score for hit in by_member.hits]
    vectors = engine.encoder.encode(["red shirt"])
    (ranked,) = engine.index.rank(vectors, 5, mode.value)
    np.testing.assert_array_equal(ranked.rows, by_member.found.rows)
    np.testing.assert_array_equal(widen(VECTORS, mode.value), widen(VECTORS, mode))


@pytest.mark.parametrize("mode", ["nonsense", "", "TEXT ", None, 3])
def test_an_unknown_mode_is_refused_everywhere(engine: Engine, mode: Any) -> None:
    vectors = engine.encoder.encode(["red shirt"])
    calls: list[Callable[[], object]] = [
        lambda: engine.search("red", mode=mode),
        lambda: list(engine.search_many(["red"], mode=mode)),
        lambda: engine.index.rank(vectors, mode=mode),
        lambda: engine.index.search(vectors, mode=mode),
        lambda: Question.of("red", 5, mode, None),
        lambda: weigh(VECTORS, mode),
        lambda: widen(VECTORS, mode),
    ]
    for call in calls:
        with pytest.raises(InputError, match=MODES) as caught:
            call()
        assert str(caught.value).startswith(f"mode is {mode!r}; ")
    (answer,) = engine.answer([Question("red", 5, mode)])
    assert isinstance(answer, InputError)
    with pytest.raises(RequestError):
        engine.search("red", mode=mode)


def test_other_names(engine: Engine, index_path: Path) -> None:
    query = engine.index.path / "query"
    assert QueryEncoder.load(query, precision="float32").manifest.dim == engine.index.dim
    for unknown in ("float16", ""):
        with pytest.raises(InputError, match=f"precision is '{unknown}'; allowed: float32, int8"):
            QueryEncoder.load(query, precision=unknown)
    with pytest.raises(InputError, match="the fit of a picture is 'stretch'; allowed: crop, pad, squash"):
        ImageOptions(64, "stretch", 0, 1, 1)
    with pytest.raises(InputError, match="the part of a dataset is 'dev'; allowed: test, train, valid"):
        Dataset(Path(), None).pairs("dev")  # type: ignore[arg-type]
    assert member(Precision, "int8", "precision") is Precision.INT8


def test_an_index_is_opened_by_its_path_as_text(engine: Engine, index_path: Path) -> None:
    wanted = engine.search("red shirt").hits
    assert Engine.open(str(index_path)).search("red shirt").hits == wanted
    assert UpdatableIndex.open(str(index_path)).snapshot.fingerprint == engine.index.fingerprint
    assert EmbeddedIndex.open(str(index_path)).fingerprint == engine.index.fingerprint


def test_every_opener_names_what_is_missing(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    openers: list[Callable[[str], object]] = [
        Engine.open, UpdatableIndex.open, EmbeddedIndex.open, Dataset.open, QueryEncoder.load, Embeddings,
        lambda path: Manifest.read(path, "smar prepare"),
    ]  # fmt: skip
    for opener in openers:
        with pytest.raises(InputError, match="nowhere"):
            opener(nowhere)


def test_every_stage_takes_paths_as_text() -> None:
    """Whatever a command calls: a `Path` alone in a signature would be a str's AttributeError deep inside."""
    from smar.core.settings import load_settings, save_settings
    from smar.data.changes import prepare_changes
    from smar.data.prepare import prepare
    from smar.demo.shop import generate_shop
    from smar.embedding.embed import embed
    from smar.embedding.update import open_for_update, update_index
    from smar.evaluation.ablation.ablate import ablate, print_plan
    from smar.evaluation.evaluate import evaluate_runs
    from smar.export.onnx import export_query
    from smar.export.quantise import add_int8
    from smar.model.run_folder import baselines, finished_stages, load_encoder, run_settings
    from smar.search.local.build import build_index
    from smar.search.local.versions import rollback
    from smar.training.train import train

    stages: list[Callable[..., Any]] = [
        ablate, add_int8, baselines, build_index, embed, evaluate_runs, export_query, finished_stages, generate_shop,
        load_encoder, load_settings, open_for_update, prepare, prepare_changes, print_plan, rollback, run_settings,
        save_settings, train, update_index,
    ]  # fmt: skip
    for stage in stages:
        for name, parameter in inspect.signature(stage).parameters.items():
            kind = str(parameter.annotation)
            assert "Path" not in kind or "str |" in kind or "StrPath" in kind, f"{stage.__name__}({name}: {kind})"
