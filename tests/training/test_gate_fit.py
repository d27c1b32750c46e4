"""The gate fitted on a small real model: pictures decide one kind of query, words the other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smar.core.errors import InputError
from smar.core.settings import Settings, load_settings
from smar.data.dataset import Dataset
from smar.data.voices import VOICES_FILE
from smar.embedding.embed import embed
from smar.model.encoder import Encoder
from smar.model.run_folder import load_encoder, run_settings
from smar.search.local.build import build_index
from smar.search.protocol import Mode
from smar.serving.engine import Engine
from smar.training.batches import KnownPositives, Pairs
from smar.training.gate_fit import choose_level, finish_gate, fit_direction, fit_gate
from smar.training.heldout import Evidence, Scored, gather, score_pairs
from smar.training.losses.gate_scores import advantage
from smar.training.setup import TrainingData
from tiny_line import Line


def unit(n: int, seed: int, dim: int = 6) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_pairs_are_scored_against_the_whole_catalogue() -> None:
    """The kept rivals give the margins of the full ranking, whatever the share; liked items are no rivals."""
    query, text, both = unit(7, 0), unit(40, 1), unit(40, 2)
    pairs = Pairs(np.array([0, 0, 3, 6, 5]), np.array([4, 9, 9, 0, 39]), np.ones(5, np.float32))
    liked = Pairs(np.array([0, 0, 3, 0]), np.array([4, 9, 9, 22]), np.ones(4, np.float32))
    scored = score_pairs(pairs, KnownPositives(liked, 7), query, text, both, k=3, block=2)
    for share in (0.0, 1.0, 0.5):
        for n, (q, item) in enumerate(zip(pairs.query, pairs.item, strict=True)):
            blend = share * (both @ query[q]) + (1 - share) * (text @ query[q])
            known = {int(i) for r, i in zip(liked.query, liked.item, strict=True) if r == q} | {int(item)}
            rivals = sorted((float(s) for i, s in enumerate(blend) if i not in known), reverse=True)
            expected = float(blend[item]) - rivals[2]
            seen = float(scored.constant(share)[n])
            if share in (0.0, 1.0):
                assert seen == pytest.approx(expected, abs=1e-6)
            else:  # of 40 items 18 are kept: enough for the third place here
                assert seen >= expected - 1e-6


def two_kinds(queries: int = 60, items: int = 300) -> Evidence:
    """Queries of which the first feature says whether the clicked item leads in the multimodal or the text scores."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(queries, 8, generator=generator)
    pictures = torch.arange(queries) % 2 == 0
    features[:, 0] = torch.where(pictures, 1.5, -1.5) + 0.3 * features[:, 0]
    query = torch.arange(queries).repeat_interleave(3)
    rivals = torch.rand(len(query), 2, 40, generator=generator) * 0.5
    ahead, behind = torch.full((len(query),), 0.7), torch.rand(len(query), generator=generator) * 0.3
    helped = pictures[query]
    own = torch.stack([torch.where(helped, behind, ahead), torch.where(helped, ahead, behind)], 1)
    item, shown = torch.arange(len(query)) % items, torch.randint(items, (len(query), 40), generator=generator)
    scored = Scored(query, item, shown, own, rivals[:, 0], rivals[:, 1], 10)
    return Evidence(features, scored, scored, None)


def test_the_gate_separates_two_kinds_of_queries() -> None:
    evidence = two_kinds()
    weight, bias, _ = fit_direction(evidence, load_settings())
    value = evidence.features @ weight + bias
    assert value[0::2].min() > value[1::2].max()
    slope, shift = choose_level(evidence.valid, (value - value.mean()) / value.std(), of_item=False)
    share = torch.sigmoid(slope * (value - value.mean()) / value.std() + shift)[evidence.valid.query]
    found = [float((m >= 0).float().mean()) for m in (evidence.valid.constant(0), evidence.valid.constant(1))]
    assert float((evidence.valid.margins(share) >= 0).float().mean()) > max(found) + 0.2


def test_labels_of_a_category_are_shared_by_its_items() -> None:
    evidence = two_kinds()
    category = (
        evidence.heldout.query[torch.arange(300) % 180] % 2
    ).long()  # item n is clicked by the pair of its number
    settings = load_settings(None, ["train.gate.mode=category"])
    weight, _, _ = fit_direction(replace(evidence, category=category), settings)
    value = evidence.features @ weight
    assert value[0::2].mean() > value[1::2].mean()


def held_out(line: Line) -> TrainingData:
    """The validation days of the tiny shop are too few: a fold, too (here the towers did see it)."""
    dataset = Dataset.open(line.dataset)
    return TrainingData.from_dataset(dataset, dataset.text_fields, holdout=0.3)


def altered(settings: Settings, *assignments: str) -> Settings:
    return load_settings(None, [*assignments, "evaluate.k=10"], data=settings.data.model_dump(mode="json"))


def test_towers_stay_as_they_are(line: Line) -> None:
    encoder, data, settings = load_encoder(line.run), held_out(line), run_settings(line.run)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    evidence = gather(encoder, data, altered(settings))
    assert evidence is not None
    fit = fit_gate(encoder, data, altered(settings), evidence)
    changed = {name for name, value in encoder.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {"gate.mlp.3.weight", "gate.mlp.3.bias"}
    again = fit_gate(encoder, data, altered(settings), evidence)
    assert again == fit


def test_held_out_pairs_are_no_training_pairs(line: Line) -> None:
    dataset = Dataset.open(line.dataset)
    data = TrainingData.from_dataset(dataset, dataset.text_fields, holdout=0.2, seed=3)
    queries, items = ({*rows[data.rows].tolist()} for rows in (data.pairs.query, data.pairs.item))
    missing = np.setdiff1d(np.arange(len(data.pairs)), data.rows)
    for query, item in zip(data.pairs.query[missing].tolist(), data.pairs.item[missing].tolist(), strict=True):
        assert query not in queries or item not in items, "a whole query or a whole item is held out"
    assert 0.1 < len(missing) / len(data.pairs) < 0.5
    evidence = gather(load_encoder(line.run), data, altered(run_settings(line.run)))
    assert evidence is not None
    trained_on = set(zip(data.pairs.query[data.rows].tolist(), data.pairs.item[data.rows].tolist(), strict=True))
    held = set(zip(evidence.heldout.query.tolist(), evidence.heldout.item.tolist(), strict=True))
    assert held
    assert not held & trained_on
    assert len(held) > len(data.pairs) - len(data.rows)


def test_too_few_pairs_leave_the_gate_alone(line: Line, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.open(line.dataset)
    data = TrainingData.from_dataset(dataset, dataset.text_fields)
    few = dataset.pairs("valid").slice(0, 5)
    dataset.pairs = lambda part: few  # type: ignore[assignment, method-assign, misc]
    assert gather(load_encoder(line.run), data, altered(run_settings(line.run))) is None


@pytest.mark.parametrize("mode", ["soft", "category"])
def test_other_modes(line: Line, tmp_path: Path, mode: str) -> None:
    encoder, data = load_encoder(line.run), held_out(line)
    queries = data.queries[:50]
    before = encoder.encode_queries(queries)[1]
    finish_gate(encoder, data, altered(run_settings(line.run), f"train.gate.mode={mode}"), tmp_path)
    assert (tmp_path / "gate.json").is_file()
    after = encoder.encode_queries(queries)[1]
    if mode == "soft":  # the level changes, the order does not
        assert np.corrcoef(np.argsort(np.argsort(before)), np.argsort(np.argsort(after)))[0, 1] > 0.99


def test_category_gate_end_to_end(line: Line, tmp_path: Path) -> None:
    """P(category) in the item vectors: one k-dimensional search gives P f_m + (1 - P) f_t."""
    encoder, data = load_encoder(line.run), held_out(line)
    dataset = data.dataset
    settings = altered(run_settings(line.run), "model.gate=category")
    evidence = gather(encoder, data, settings)
    assert evidence is not None
    fit_gate(encoder, data, settings, evidence)
    shares = encoder.config.category_share
    categories = dataset.fields(["category"])[0]
    assert set(shares) == {*categories, ""}
    encoder.model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / VOICES_FILE).unlink()  # of the gate that was
    encoder.processor.save_pretrained(tmp_path / "model")
    encoder = Encoder.from_pretrained(tmp_path / "model")
    embed(encoder, dataset, tmp_path / "embeddings")
    build_index(tmp_path / "embeddings", tmp_path / "index")
    result = Engine.open(tmp_path / "index").search("black trousers", k=20)
    vectors = list(encoder.encode_items(dataset.fields(dataset.text_fields), dataset.images, dataset.image_row))
    query = encoder.encode_query(["black trousers"]).embedding[0].numpy()
    text, both = (np.concatenate([getattr(v, name) for v in vectors]) @ query for name in ("text", "multimodal"))
    share = np.array([shares[category] for category in categories])
    expected = np.sort(share * both + (1 - share) * text)[::-1][:20]
    np.testing.assert_allclose([hit.score for hit in result.hits], expected, atol=1e-5)
    assert result.image_probability == 1


def test_routing_follows_the_threshold_of_the_model(line: Line, tmp_path: Path) -> None:
    dataset, encoder = Dataset.open(line.dataset), load_encoder(line.run)
    queries = ["black trousers", "kettle", "striped dress", "steel drill 18 v", "red shirt"]
    p = encoder.encode_queries(queries)[1]
    encoder.config.threshold = float(np.median(p))
    embed(encoder, dataset, tmp_path / "embeddings")
    build_index(tmp_path / "embeddings", tmp_path / "index")
    engine = Engine.open(tmp_path / "index")
    sides = set()
    for query in queries:
        routed = engine.search(query, 5, Mode.ROUTE)
        sides.add(routed.routed)
        one_side = engine.search(query, 5, Mode.MULTIMODAL if routed.routed else Mode.TEXT)
        assert [hit.item_id for hit in routed.hits] == [hit.item_id for hit in one_side.hits]
        assert [hit.score for hit in routed.hits] == [hit.score for hit in one_side.hits]
    assert sides == {True, False}


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match=r"set train\.gate\.mode=counterfactual"):
        load_settings(None, ["model.gate=category", "train.gate.mode=soft"])
    assert load_settings(None, ["train.gate.mode=none"]).train.gate.fold == 0


def test_advantage_is_what_the_direction_learns() -> None:
    evidence = two_kinds()
    label = advantage(evidence.heldout.constant(0), evidence.heldout.constant(1))
    assert (label[evidence.heldout.query % 2 == 0] > 0).all()
    assert (label[evidence.heldout.query % 2 == 1] < 0).all()
