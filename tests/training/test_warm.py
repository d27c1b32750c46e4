"""`smar train --from RUN`: what a run that goes on from another keeps, adds, remembers and refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from checkpoints import checkpoint
from later_shop import NEW_WORDS, later_tables, prepare_later
from preloaded import train_until_killed
from smar.core.errors import InputError
from smar.core.files import sha256
from smar.core.sections.model import ModelSettings
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.data.text import normalise
from smar.evaluation.facts import trained_on
from smar.evaluation.systems import predecessor
from smar.model.encoder import Encoder, fingerprint
from smar.model.processing import SmarProcessor, build_processor
from smar.model.run_folder import RunManifest, StageRecord, run_settings
from smar.model.seen import Seen, pair_keys
from smar.model.start import new_model
from smar.model.tokenizer import BYTES, count_words, extended, fit_tokenizer
from smar.model.warm_weights import contradictions, warm_model, warm_processor
from smar.training.heldout import _pairs
from smar.training.setup import TrainingData
from smar.training.warm_start import WarmStart, warm_settings
from tiny_line import Line, Outcome, prepare_words, smar

pytestmark = pytest.mark.slow
SHORT = [
    "--set",
    "train.bf16=false",
    "--set",
    "train.baselines=[{kind: dpsr}]",
    "--set",
    "train.stage1.steps=4",
    "--set",
    "train.stage2.steps=2",
]


@pytest.fixture(scope="module")
def shops(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `run`, trained on the shop as it was, `later`, the shop some weeks later, and `warm` that goes on."""
    folder = tmp_path_factory.mktemp("warm")
    line.copy("run", folder)
    later_tables(line, folder)
    done = prepare_later(line, folder)
    assert done.code == 0, done.err
    done = go_on(folder, *SHORT)
    assert done.code == 0, done.err
    assert done.says("goes on from", f"run (model {fingerprint(folder / 'run' / 'stage2')})", "tokens for new words")
    return folder


def go_on(folder: Path, *words: object, out: str = "warm", run: str = "run", dataset: str = "later") -> Outcome:
    return smar("train", folder / dataset, "--from", folder / run, "--out", folder / out, *words)


def refused(outcome: Outcome, *parts: str) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.says(*parts), outcome.err


def test_tokens_keep_their_ids_and_new_words_are_tokens_everywhere(shops: Path):
    before, after = (SmarProcessor.from_pretrained(shops / name).tokenizer for name in ("run/stage2", "warm/processor"))
    known = before.get_vocab()
    assert {token: after.get_vocab()[token] for token in known} == known
    added = len(after) - len(before)
    assert 0 < added < 60
    assert sorted(after.get_vocab().values()) == list(range(len(after)))
    assert after.tokenize(" ".join(NEW_WORDS)) == ["hoverboard", "squeejo", "ね", "こ", "grössenwunder"]
    files = [*shops.glob("warm/**/tokenizer.json")]
    assert len(files) == 5  # the run's processor, two stages of each of two models
    assert len({sha256(file) for file in files}) == 1
    for file in files[1:]:
        if (file.parent / "model.safetensors").is_file():
            model = Encoder.from_pretrained(file.parent).model
            assert model.query_tower.encoder.get_input_embeddings().num_embeddings == len(after)
            assert (model.config.query_config.vocab_size, model.config.text_config.vocab_size) == (len(after),) * 2


def test_texts_are_read_as_before_but_for_pieces_that_join(shops: Path):
    before, after = (SmarProcessor.from_pretrained(shops / name).tokenizer for name in ("run/stage2", "warm/processor"))
    titles = [normalise(title) for title in Dataset.open(shops / "later").items["title"].to_pylist()]
    texts = [*titles, *NEW_WORDS, "hoverboards", "superhoverboard 3", "unheard of ねこ"]
    old, new = (tokenizer(texts, add_special_tokens=False)["input_ids"] for tokenizer in (before, after))
    for ids, now in zip(old, new, strict=True):
        names = after.convert_ids_to_tokens(now)
        apart = [
            before(n, add_special_tokens=False)["input_ids"] if t >= len(before) else [t]
            for t, n in zip(now, names, strict=True)
        ]
        assert [token for part in apart for token in part] == ids
    assert sum(ids == now for ids, now in zip(old, new, strict=True)) > 0.8 * 300  # of the shop as it was


def test_a_new_tokens_vector_is_the_mean_of_its_pieces_and_all_else_is_kept(shops: Path):
    settings, processor = run_settings(shops / "warm"), SmarProcessor.from_pretrained(shops / "warm" / "processor")
    before = Encoder.from_pretrained(shops / "run" / "stage2")
    first, now = (
        m.state_dict()
        for m in (before.model, warm_model(shops / "run" / "stage2", settings, settings.model, processor))
    )
    words = [name for name in first if "word_embeddings" in name]
    assert len(words) == 1  # shared
    assert first.keys() == now.keys()
    assert all(torch.equal(first[name], now[name]) for name in first if name not in words)
    old, new = first[words[0]], now[words[0]]
    assert torch.equal(new[: len(old)], old)
    for token in range(len(old), len(new)):
        text = processor.tokenizer.convert_ids_to_tokens(token)
        pieces = before.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert torch.allclose(new[token], old[pieces].mean(0))


def test_separate_towers_get_the_rows_both(shops: Path, line: Line, tmp_path: Path):
    """And no tower that lacks text is asked."""
    settings = load_settings(line.config, ["model.share_text=false"])
    processor = SmarProcessor.from_pretrained(shops / "run" / "stage2")
    model = new_model(settings, settings.model, processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    larger = warm_processor(tmp_path, settings.model, {"hoverboard": 9})
    built = warm_model(tmp_path, settings, settings.model, larger)
    rows = [tower.encoder.get_input_embeddings().weight for tower in (built.query_tower, built.text_tower)]
    assert [len(row) for row in rows] == [len(larger.tokenizer)] * 2
    assert len(larger.tokenizer) > len(processor.tokenizer)
    assert not torch.equal(*rows)


def test_tokens_are_bounded_over_a_chain_and_rare_words_get_none(shops: Path):
    tokenizer = fit_tokenizer(["red summer dress", "blue winter coat"] * 3, 100)
    more = extended(tokenizer, {"hoverboard": 5, "rare": 2}, 3)
    assert len(more) - len(tokenizer) == 3
    assert len(extended(tokenizer, {"rare": 2}, 99)) == len(tokenizer)
    assert len(extended(tokenizer, {"红色": 9, "hoverboard": 9}, 0)) == len(tokenizer)
    before = SmarProcessor.from_pretrained(shops / "warm" / "stage2")
    for size, new in ((len(before.tokenizer) - len(BYTES), 2), (100, 0)):  # the second has more than that already
        settings = run_settings(shops / "warm").model.model_copy(update={"vocabulary": size, "new_words": new})
        after = warm_processor(shops / "warm" / "stage2", settings, {"red": 9, "zeppelin": 9, "xylophone": 9})
        assert len(after.tokenizer) - len(before.tokenizer) == new
    assert count_words(["red red-dress", "ねこ"]) == {"red": 2, "-": 1, "dress": 1, "ね": 1, "こ": 1}


def test_a_pretrained_tokenizer_is_kept(tmp_path: Path):
    pair = ModelSettings(pretrained=str(checkpoint("clip", tmp_path)))
    build_processor(pair, 32, []).save_pretrained(tmp_path / "stage2")
    kept = warm_processor(tmp_path / "stage2", pair, {"hoverboard": 9})
    assert kept.tokenizer.get_vocab() == SmarProcessor.from_pretrained(tmp_path / "stage2").tokenizer.get_vocab()


def test_killed_it_goes_on_bit_for_bit(shops: Path, tmp_path: Path):
    run, words = (
        tmp_path / "warm",
        ["train", shops / "later", "--from", shops / "run", "--out", tmp_path / "warm", *SHORT],
    )
    train_until_killed(1, *words)
    assert not (run / "stage2" / "manifest.json").exists()
    written = sha256(run / "processor" / "tokenizer.json")
    refused(smar(*words[:2], "--out", run, *SHORT, "--config", shops / "run" / "config.yaml"), "same --from")
    done = smar(*words)
    assert done.code == 0, done.err
    assert done.says("smar stage1: going on from checkpoint-")
    models = sorted(path.relative_to(shops / "warm") for path in (shops / "warm").rglob("stage*/model.safetensors"))
    assert len(models) == 4
    assert all((run / model).read_bytes() == (shops / "warm" / model).read_bytes() for model in models)
    assert sha256(run / "processor" / "tokenizer.json") == written
    assert Seen.read(run).pairs.tolist() == Seen.read(shops / "warm").pairs.tolist()


def test_a_run_remembers_where_it_began_and_what_it_has_seen(shops: Path):
    manifest = RunManifest.read(shops / "warm", "smar train")
    assert manifest.parent.name == "run"
    assert manifest.parent.fingerprint == fingerprint(shops / "run" / "stage2")
    assert manifest.parent.dataset == RunManifest.read(shops / "run", "smar train").dataset
    assert str(shops) not in (shops / "warm" / "manifest.json").read_text()
    assert "Goes on from the run run (model" in (shops / "warm" / "stage1" / "README.md").read_text()
    before, after = Seen.read(shops / "run"), Seen.read(shops / "warm")
    assert np.isin(before.pairs, after.pairs).all()
    assert np.isin(before.words, after.words).all()
    assert len(after.pairs) > len(before.pairs)
    assert StageRecord.read(shops / "warm" / "stage1", "smar train").start is None


def test_a_quarter_of_the_steps_and_a_chain_keeps_them(shops: Path, line: Line):
    first, chained = warm_settings(shops / "run"), warm_settings(shops / "warm")
    assert (first.train.stage0.steps, first.train.stage1.steps, first.train.stage2.steps) == (0, 2, 1)
    assert first.model == run_settings(shops / "run").model
    assert (chained.train.stage1.steps, chained.train.stage2.steps) == (4, 2)
    base = load_settings(line.config, ["train.baselines=[{kind: dpsr, steps: [9, 1]}]"])
    own = yaml.safe_load((shops / "run" / "config.yaml").read_text())
    assert base.train.baselines[0].steps == (9, 1)
    assert (
        load_settings(None, ["train.seed=5"], base=first).train.stage1.batch_size
        == own["train"]["stage1"]["batch_size"]
    )


def test_held_out_are_pairs_that_no_run_before_has_seen(shops: Path):
    dataset, settings = Dataset.open(shops / "later"), run_settings(shops / "warm")
    fresh = TrainingData.from_dataset(dataset, settings.data.text_fields, holdout=0.2)
    before = Seen.read(shops / "run")
    warm = TrainingData.from_dataset(dataset, settings.data.text_fields, 0.2, before=before)
    count = {}
    for name, data in (("fresh", fresh), ("warm", warm)):
        valid, _, heldout, queries, _ = _pairs(data, settings)
        keys = data.keys_of(heldout.query, heldout.item, queries)
        count[name] = len(keys), int(np.isin(keys, before.pairs).sum()), len(valid)
    assert count["fresh"][1] > 20
    assert count["warm"] == (count["fresh"][0] - count["fresh"][1], 0, count["fresh"][2])
    assert count["warm"][0] > 20


def test_the_report_compares_it_with_the_run_before_on_the_same_clicks(shops: Path, tmp_path: Path):
    off = [word for name in ("controls", "bm25", "trec") for word in ("--set", f"evaluate.{name}=false")]
    one, two = tmp_path / "one", tmp_path / "two"
    assert smar("evaluate", shops / "warm", shops / "later", *off, "--out", one).code == 0
    assert smar("evaluate", shops / "run", shops / "warm", shops / "later", *off, "--out", two).code == 0
    row, both = (
        {(r["model"], r["slice"], r["metric"]): r for r in json.loads((out / "metrics.json").read_text())}
        for out in (one, two)
    )
    for metric in ("R@50", "MRR"):
        assert row["predecessor", "all", metric]["value"] == both["run", "all", metric]["value"]
        assert row["smar", "all", metric]["value"] == both["warm", "all", metric]["value"]
    compared, other = row["smar - predecessor", "all", "R@50"], both["run - warm", "all", "R@50"]
    assert compared["value"] == pytest.approx(-other["value"])
    assert 0 < compared["p"] <= compared["p_holm"] <= 1
    assert not [name for name, *_ in both if "predecessor" in name]
    assert "the run that it went on from" in (one / "report.md").read_text()
    assert "ANOTHER dataset" in (two / "report.md").read_text()
    assert "going on from run" in (two / "report.md").read_text()
    moved = Path(shutil.copytree(shops / "warm", tmp_path / "alone" / "warm"))
    with pytest.raises(InputError, match=r"no run run with the model .* lies beside warm"):
        predecessor(moved, Dataset.open(shops / "later"), ())


def test_a_report_counts_test_pairs_that_a_run_has_learned(shops: Path, line: Line, tmp_path: Path):
    words = [*prepare_words(line.root), "--set", "data.test_share=0.6", "--set", "data.thumbnail_size=0"]
    assert smar(*words, "--out", tmp_path / "early").code == 0
    early, later = Dataset.open(tmp_path / "early"), Dataset.open(shops / "later")
    test = early.pairs("test").filter(~np.asarray(early.pairs("test")["seen_in_train"]))
    ids = early.items["item_id"].take(test["item_index"]).to_pylist()
    dataset, options = Dataset.open(line.dataset), run_settings(line.run)
    data = TrainingData.from_dataset(dataset, dataset.text_fields, options.train.gate.fold, options.train.seed)
    known = dataset.pairs("train").take(data.rows)
    names = dataset.items["item_id"].take(known["item_index"]).to_pylist()
    both = {*zip(test["query"].to_pylist(), ids, strict=True)} & {*zip(known["query"].to_pylist(), names, strict=True)}
    assert len(both) > 50
    assert f"of {len(test):,} test pairs that are new here, {len(both):,} were in its training" in trained_on(
        line.run, early
    )
    assert "0 were in its training" in trained_on(line.run, later)
    assert trained_on(line.run, Dataset.open(line.dataset)) == "this dataset"
    assert len(pair_keys(["a", "b"], ["1", "1"])) == 2


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["model.dim=64"], ["contradict the weights", "model.dim: 32 then, 64 now"]),
        (["model.vocabulary=900"], ["model.vocabulary: 800 then, 900 now"]),
        (["model.query.layers=2", "model.text.layers=2"], ["model.query.layers: 1", "model.text.layers: 1"]),
        (["model.kind=clip"], ["model.kind: 'smar' then, 'clip' now"]),
        (["train.loss.learn_temperature=true"], ["train.loss.learn_temperature: False then, True now"]),
        (["train.baselines=[{kind: clip}]"], ["has no model clip to go on from; it has smar, dpsr, dpsr-i"]),
        (["train.baselines=[{kind: dpsr, model: {pooling: cls}}]"], ["baseline dpsr, model.pooling: 'own' then"]),
        (["model.query_length=31"], ["model.query_length=31 is more than the 30 tokens"]),
        (["model.matryoshka=[64]"], ["matryoshka"]),
        (["model.gate=category", "data.text_fields=[title]"], ["no category among its text fields (title)"]),
    ],
)  # fmt: skip
def test_what_contradicts_the_weights_is_refused_by_name(shops: Path, words: list[str], parts: list[str]):
    refused(go_on(shops, *[word for text in words for word in ("--set", text)], out="none"), *parts)
    assert not (shops / "none").exists()


def test_what_says_how_to_train_may_change(shops: Path):
    before = run_settings(shops / "run")
    free = ["model.modality_dropout=0.3", "model.new_words=5", "model.query.dropout=0.1", "model.text.dropout=0.1"]
    free += ["model.query_length=9", "train.stage1.learning_rate=0.01", "model.item_prefix=x", "model.gate=category"]
    now = load_settings(shops / "run" / "config.yaml", [*free, "train.temperature=0.07"])
    assert not contradictions(before, now)
    processor = SmarProcessor.from_pretrained(shops / "run" / "stage2")
    model = warm_model(shops / "run" / "stage2", now, now.model, processor)
    config = model.config
    assert (config.modality_dropout, config.query_length, config.item_prefix) == (0.3, 9, "x")
    assert (config.temperature, model.query_tower.encoder.embeddings.dropout.p) == (0.07, 0.1)


def test_data_that_do_not_fit_are_refused(shops: Path, line: Line, tmp_path: Path):
    words = pq.read_table(shops / "items.parquet").drop_columns(["image"])
    pq.write_table(words, tmp_path / "items.parquet")
    shutil.copy(shops / "clicks.parquet", tmp_path)
    assert prepare_later(line, tmp_path, out="plain").code == 0
    assert prepare_later(line, tmp_path, "--set", "data.image_size=48", out="large").code == 0
    for name in ("run", "warm"):
        (tmp_path / name).symlink_to(shops / name)
    refused(
        go_on(tmp_path, dataset="plain", out="new"),
        "learned from pictures (smar, dpsr-i)",
        "has none",
        "--images",
    )
    refused(go_on(tmp_path, dataset="large", out="new"), "pictures of 32 pixels", "packed at 48", "data.image_size=32")
    assert not (tmp_path / "new").exists()


def test_runs_that_cannot_be_gone_on_from(shops: Path, tmp_path: Path):
    refused(go_on(shops, out="run"), "is the run itself")
    refused(go_on(shops, *SHORT, run="nothing"), "manifest.json is missing", "smar train")
    run = Path(shutil.copytree(shops / "run", tmp_path / "run"))
    shutil.rmtree(run / "stage2")
    refused(smar("train", shops / "later", "--from", run, "--out", tmp_path / "new"), "is not finished")
    refused(go_on(shops, *SHORT, run="warm", out="warm"), "is the run itself")
    other = Path(shutil.copytree(shops / "warm", tmp_path / "warm"))
    refused(
        smar("train", shops / "later", "--from", other, "--out", shops / "warm", *SHORT),
        "began from run",
        "same --from",
    )
    (tmp_path / "warm" / "seen.npz").write_bytes(b"PK\3\4 nothing")
    refused(smar("train", shops / "later", "--from", other, "--out", tmp_path / "new", *SHORT), "seen.npz is damaged")


def test_other_columns_and_a_run_that_remembers_nothing_are_told(shops: Path, line: Line, tmp_path: Path):
    run = Path(shutil.copytree(shops / "run", tmp_path / "run"))
    (run / "seen.npz").unlink()
    for table in ("items", "clicks"):
        shutil.copy(shops / f"{table}.parquet", tmp_path)
    assert prepare_later(line, tmp_path, "--set", "data.text_fields=[title, group]").code == 0
    warm = WarmStart.open(run)
    dataset, settings = (
        Dataset.open(tmp_path / "later"),
        load_settings(None, data=Dataset.open(tmp_path / "later").manifest.settings, base=warm_settings(run)),
    )
    data = TrainingData.from_dataset(dataset, settings.data.text_fields, before=warm.known)
    told = dict(warm.notes(data, settings, SmarProcessor.from_pretrained(shops / "warm" / "processor")))
    assert told["item text"] == "group is new, category is gone, brand is gone; it is now title, group"
    assert "older smar" in told["seen before"]
