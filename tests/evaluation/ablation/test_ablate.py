"""A real ablation on the tiny shop: rows, resumption, worker processes, refusals."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from preloaded import command, quick_spawn, start
from smar.data.dataset import Dataset
from smar.evaluation.ablation.questions import Answers, rank_modes, validation_qrels
from smar.evaluation.ablation.variants_run import read_answers, write_answers
from smar.evaluation.encoded_items import encode_catalogue
from smar.evaluation.markdown import p_value
from smar.evaluation.metrics import QueryMetrics, Relevance
from smar.evaluation.scores import Task
from smar.evaluation.significance import holm, sign_flip
from smar.model.run_folder import load_encoder
from tiny_line import CONFIG, Line, Outcome, smar
from tiny_service import becomes

pytestmark = pytest.mark.slow
LONGER = {"train.stage1.steps": 6, "train.stage2.steps": 3, "curve": "smar", "note": "half more"}
ABLATE = {
    "steps": [4, 2],
    "seeds": [0, 1],
    "builtin": False,
    "variants": {
        "base": {"curve": "smar"},
        "longer": LONGER,
        "dpsr": {"model.kind": "dpsr"},
        "broken": {"train.temperature": 1e-44},
    },
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "ablate.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "ablate": {**ABLATE, **changes}}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def made(line: Line, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The table of the variants above, made by two worker processes."""
    root = tmp_path_factory.mktemp("ablation")
    words = ("ablate", write(root), line.dataset, "--out", root / "out", "--workers", "2")
    words = (*words, "--qrels", line.shop / "qrels.parquet")
    with (
        quick_spawn("smar.evaluation.ablation.variants_run.multiprocessing.get_context"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["smar", *map(str, words)])
        patch.setenv("OMP_NUM_THREADS", "1")
        return root / "out", smar(*words)


@pytest.fixture(scope="module")
def rows(made: tuple[Path, Outcome]) -> dict[str, dict]:
    return {row["variant"]: row for row in json.loads((made[0] / "ablation.json").read_text())["rows"]}


def metric(row: dict, mode: str = "adaptive", piece: str = "all") -> dict:
    (found,) = [m for m in row["metrics"] if (m["slice"], m["mode"], m["metric"]) == (piece, mode, "R@50")]
    return found


def test_a_variant_that_fails_is_named_and_stops_no_other(made: tuple[Path, Outcome], rows: dict[str, dict]) -> None:
    out, said = made
    assert said.code == 1, said.err
    assert said.says("these variants have no row: broken (seed", "the loss is")
    assert "Traceback" not in said.err
    assert list(rows) == ["base", "longer", "dpsr"]
    assert "Not trained yet: broken" in (out / "ablation.md").read_text()


def test_rows_say_what_was_trained(rows: dict[str, dict]) -> None:
    seed = rows["longer"]["seeds"][1]
    assert (seed["seed"], seed["steps"], seed["pairs"]) == (1, [6, 3], 9 * 64)
    assert seed["cpu_seconds"] > 0
    assert rows["dpsr"]["seeds"][0]["parameters"] < seed["parameters"]
    assert {m["mode"] for m in rows["base"]["metrics"]} == {
        "adaptive",
        "text",
        "multimodal",
        "image",
        "random gate",
        "two-way",
    }
    assert {m["mode"] for m in rows["dpsr"]["metrics"]} == {"adaptive", "text"}
    assert metric(rows["base"], piece="judged all")["queries"] > metric(rows["base"])["queries"]


def test_figures_are_those_of_evaluate_averaged_over_seeds(
    line: Line, made: tuple[Path, Outcome], rows: dict[str, dict], tmp_path: Path
) -> None:
    modes = {"smar": "adaptive", "multimodal": "multimodal"}
    found: dict[str, list[float]] = {mode: [] for mode in modes.values()}
    for seed in (0, 1):
        run = made[0] / "base" / f"seed-{seed}"
        said = smar("evaluate", run, line.dataset, "--out", tmp_path / f"seed-{seed}")
        assert said.code == 0, said.err
        for row in json.loads((tmp_path / f"seed-{seed}" / "metrics.json").read_text()):
            if (row["slice"], row["metric"]) == ("all", "R@50") and row["model"] in modes:
                found[modes[row["model"]]].append(row["value"])
    for mode, values in found.items():
        assert metric(rows["base"], mode)["value"] == pytest.approx(np.mean(values))
    assert rows["base"]["spread"] == pytest.approx(np.std(found["adaptive"], ddof=1))


def test_differences_are_to_the_base(rows: dict[str, dict]) -> None:
    assert rows["base"]["difference"] == []
    for name in ("longer", "dpsr"):
        for row in rows[name]["difference"]:
            values = [metric(rows[variant], piece=row["slice"])["value"] for variant in (name, "base")]
            assert row["value"] == pytest.approx(values[0] - values[1])
            assert row["low"] <= row["value"] <= row["high"]


def test_differences_have_p_corrected_by_family(made: tuple[Path, Outcome], rows: dict[str, dict]) -> None:
    recall = {
        name: np.mean(
            [read_answers(made[0] / name / f"seed-{n}" / "queries.parquet")["all", "adaptive"].recall for n in (0, 1)],
            0,
        )
        for name in rows
    }
    others = ("longer", "dpsr")
    p = sign_flip(np.column_stack([recall[name] - recall["base"] for name in others]))
    found = {(name, row["slice"]): row for name in others for row in rows[name]["difference"]}
    assert [found[name, "all"]["p"] for name in others] == p.tolist()
    assert [found[name, "all"]["p_holm"] for name in others] == holm(p).tolist()
    rest = [row for (_, piece), row in found.items() if piece != "all"]
    assert {row["slice"] for row in rest} >= {"cold_items", "judged all"}
    np.testing.assert_allclose([row["p_holm"] for row in rest], holm([row["p"] for row in rest]))
    text = (made[0] / "ablation.md").read_text()
    for head in ("to base | p | p corrected | ", "difference to base; its corrected p"):
        assert head in text
    shown = f"{p_value(found['dpsr', 'all']['p'])} | {p_value(found['dpsr', 'all']['p_holm'])} |"
    assert shown in next(row for row in text.splitlines() if row.startswith("| dpsr"))


def test_the_terminal_shows_the_corrected_p(line: Line, made: tuple[Path, Outcome], tmp_path: Path) -> None:
    out = Path(shutil.copytree(made[0], tmp_path / "out"))
    judged = ("--qrels", line.shop / "qrels.parquet")
    said = smar("ablate", write(tmp_path), line.dataset, "--out", out, "--only", "base,longer,dpsr", *judged)
    assert "p corrected" in " ".join(said.out.split())


def test_table_shows_rows_in_order_with_charts_and_origin(made: tuple[Path, Outcome]) -> None:
    text = (made[0] / "ablation.md").read_text()
    lines = [text_line for text_line in text.splitlines() if text_line.startswith(("| base", "| longer", "| dpsr"))]
    assert [text_line.split()[1] for text_line in lines[:3]] == ["base", "longer", "dpsr"]
    for part in ("half more", "smar ablate", "generated shop, simulated log", "machine", "2: 0.0"):
        assert part in text
    for name in ("ablation.png", "curve.png"):
        assert f"({name})" in text
        assert (made[0] / name).read_bytes().startswith(b"\x89PNG")


def test_again_trains_nothing_and_a_new_seed_trains_itself_only(
    line: Line, made: tuple[Path, Outcome], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(made[0], tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*/row.json")}
    assert len(before) == 6
    judged = ("--qrels", line.shop / "qrels.parquet")
    again = smar("ablate", write(tmp_path), line.dataset, "--out", out, "--only", "base,longer,dpsr", *judged)
    assert again.code == 0, again.err
    assert again.says("trained now 0")
    more = ("--only", "dpsr", "--set", "ablate.seeds=[0,1,2]")
    assert smar("ablate", write(tmp_path), line.dataset, "--out", out, *more, *judged).code == 0
    rows = {path: path.stat().st_mtime_ns for path in out.rglob("*/row.json")}
    assert rows.items() - before.items() == {(path, rows[path]) for path in rows.keys() - before.keys()}
    assert [path.parent.name for path in rows.keys() - before.keys()] == ["seed-2"]


def test_other_questions_measure_again_without_training(line: Line, made: tuple[Path, Outcome], tmp_path: Path) -> None:
    out = Path(shutil.copytree(made[0], tmp_path / "out"))
    model = out / "dpsr" / "seed-0" / "stage2" / "model.safetensors"
    before = model.stat().st_mtime_ns
    words = ("--only", "dpsr", "--set", "ablate.evaluate_on=valid", "--set", "ablate.seeds=[0]")
    assert smar("ablate", write(tmp_path), line.dataset, "--out", out, *words).code == 0
    assert model.stat().st_mtime_ns == before
    (row,) = json.loads((out / "ablation.json").read_text())["rows"]  # the others answer other questions
    assert metric(row)["queries"] == len(set(validation_qrels(Dataset.open(line.dataset))["query"].to_pylist()))


def test_other_settings_in_the_same_folder_are_refused_before_training(
    line: Line, made: tuple[Path, Outcome], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(made[0], tmp_path / "out"))
    words = ("--set", "model.dim=16", "--set", "ablate.variants.first={train.stage1.steps: 1}")
    failed = smar("ablate", write(tmp_path), line.dataset, "--out", out, *words)
    assert failed.code == 2, failed.err
    assert failed.says("another configuration", "model.dim: 32 then, 16 now")
    assert not (out / "first" / "seed-0" / "stage1").exists()


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
def test_killed_workers_end_and_the_next_call_goes_on_bit_for_bit(
    line: Line, made: tuple[Path, Outcome], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["ablate", write(tmp_path), line.dataset, "--out", out, "--only", "longer", "--workers", "2"]
    parent = start(command, tuple(words))
    try:
        assert becomes(lambda: any(out.glob("*/seed-*/stage*/checkpoint-*/seal.json")), 600)
        workers = children(parent.pid)
    finally:
        parent.kill()
    assert len(workers) >= 2
    if not becomes(lambda: all(map(gone, workers))):
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        pytest.fail("workers outlived their parent")
    assert not list(out.rglob("row.json"))
    done = smar(*words[:-2])
    assert done.code == 0, done.err
    assert done.says("going on from checkpoint-")
    for seed in ("seed-0", "seed-1"):
        model = Path("longer", seed, "stage2", "model.safetensors")
        assert (out / model).read_bytes() == (made[0] / model).read_bytes()


def test_plan_lists_built_in_variants_and_writes_nothing(line: Line, tmp_path: Path) -> None:
    file = write(tmp_path, builtin=True, seeds=[0], variants={"mine": {"model.dim": 16}})
    shown = smar("ablate", file, line.dataset, "--out", tmp_path / "out", "--plan")
    assert shown.code == 0, shown.err
    for part in (
        "no-image-task",
        "cls-pooling",
        "model.pooling=cls",
        "mine",
        "model.dim=16",
        "0 + 6",
        "6 + 0",
        "matryoshka=[8, 16]",
    ):
        assert shown.says(part), part
    assert shown.says("left out: mean-pooling: the base has these settings already")
    assert not (tmp_path / "out").exists()
    other = smar("ablate", file, line.dataset, "--out", tmp_path / "out", "--plan", "--set", "model.pooling=cls")
    assert other.says("left out: cls-pooling", "model.pooling=mean")


@pytest.mark.parametrize(
    ("variants", "words", "parts"),
    [
        ({"a": {"model.poolling": "cls"}}, (), ("ablate.variants.a", "model.poolling")),
        ({"a": {"model.pooling": "best"}}, (), ("ablate.variants.a", "model.pooling", "'best'")),
        ({"a": {"model.dim": 32}}, (), ("ablate.variants.a: the base has these settings already",)),
        ({"a": {"train.seed": 3}}, (), ("train.seed cannot be varied: ablate.seeds",)),
        ({"a": {"data.image_size": 64}}, (), ("'data.image_size' cannot be varied", "data.text_fields")),
        ({"a": {"data.text_fields": ["titel"]}}, (), ("ablate.variants.a", "'titel'", "title")),
        ({"a": {"evaluate.k": 10}}, (), ("'evaluate.k' cannot be varied",)),
        ({"base": {"model.dim": 16}}, (), ("ablate.variants.base", "change it there")),
        ({"../a": {"model.dim": 16}}, (), ("ablate.variants", "../a")),
        ({"a": {"model.dim": 16}}, ("--only", "b"), ("--only is 'b'; allowed: a, base",)),
        ({"a": {"model.dim": 16}}, ("--workers", "0"), ("'0' is not a whole number from 1 on",)),
        ({"a": {"model.dim": 16}}, ("--qrels", "nowhere.parquet"), ("nowhere.parquet is no file",)),
    ],
)
def test_what_is_wrong_is_named_before_anything_trains(
    line: Line, tmp_path: Path, variants: dict, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    failed = smar("ablate", write(tmp_path, variants=variants), line.dataset, "--out", tmp_path / "out", *words)
    assert failed.code == 2, failed.err
    assert failed.says(*parts), failed.err
    assert not (tmp_path / "out").exists()


def test_modes_rank_by_the_scores_they_name(line: Line) -> None:
    encoder, dataset = load_encoder(line.run), Dataset.open(line.dataset)
    catalogue = encode_catalogue(encoder, dataset, "test")
    queries = dataset.pairs("train")["query"].to_pylist()[:300]
    nothing = np.zeros(0, np.int64)
    ranked = rank_modes(
        encoder, dataset, catalogue, queries, Task(Relevance.from_pairs([], [], [], len(queries)), 10, 10, nothing)
    )
    vectors, p = encoder.encode_queries(queries)
    wrong = np.random.default_rng(0).permutation(p)
    assert sorted(wrong.tolist()) == sorted(p.tolist())
    for row in (0, 255, 256, 299):
        t, m, i = (vectors[row] @ getattr(catalogue, name).T for name in ("text", "multimodal", "image"))
        shares = {"two-way": p[row], "text": 0, "multimodal": 1, "random gate": wrong[row]}
        scores = {mode: share * m + (1 - share) * t for mode, share in shares.items()} | {"image": i}
        assert ranked.keys() == {*scores, "adaptive"}
        for mode, score in scores.items():
            found = score[ranked[mode].ranking[row]]
            assert found == pytest.approx(np.sort(score)[::-1][:10], abs=1e-5), mode


def test_answers_survive_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    answers: Answers = {
        (piece, mode): QueryMetrics(np.arange(n), *rng.random((4, n)))
        for piece, n in (("all", 5), ("column=a/b", 1))
        for mode in ("adaptive", "text")
    }
    write_answers(tmp_path / "queries.parquet", answers)
    read = read_answers(tmp_path / "queries.parquet")
    assert list(read) == list(answers)
    for key, metrics in answers.items():
        for name in ("rows", "recall", "precision", "ndcg", "rr"):
            assert getattr(read[key], name).tolist() == getattr(metrics, name).tolist()


def test_validation_judgements_are_its_pairs(line: Line) -> None:
    dataset = Dataset.open(line.dataset)
    ids = dataset.items["item_id"].to_pylist()
    slow = [
        (row["query"], ids[row["item_index"]], 2 if row["orders"] else 1) for row in dataset.pairs("valid").to_pylist()
    ]
    fast = [(row["query"], row["item_id"], row["relevance"]) for row in validation_qrels(dataset).to_pylist()]
    assert slow
    assert fast == slow
