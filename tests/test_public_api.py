"""The public API: loaded lazily, takes tables and pictures as a program has them, and says what is wrong."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
from PIL import Image
from transformers import BertConfig, TrainerCallback

import smar
from smar.core.registry import FUSIONS, LOSSES
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.model import Fusion, register_encoder, register_fusion
from smar.training import register_loss
from tiny_line import CONFIG, Line

TABLES = {
    "items": pa.table({"item_id": ["a", "b", "c"], "title": ["Red dress", "Blue dress", "Kettle"]}),
    "clicks": pa.table({"query": ["dress", "kettle", "red"], "item_id": ["a", "c", "a"]}),
}


@pytest.fixture(scope="module")
def encoder(line: Line) -> smar.Encoder:
    return smar.load(line.run, device="cpu")


@pytest.fixture(scope="module")
def index(line: Line) -> smar.Index:
    return smar.Index.open(line.index)


def test_names_are_loaded_when_they_are_used() -> None:
    code = (
        "import sys, smar; assert not {'torch', 'numpy', 'pyarrow'} & {*sys.modules}; smar.Index; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "faiss" in loaded
    assert not {"torch", "transformers"} & {*loaded}
    assert all(getattr(smar, name).__name__ == name for name in smar.__all__)
    assert {*smar.__all__} <= {*dir(smar)}
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = smar.serach


@pytest.mark.parametrize("form", [lambda t: t, polars.from_arrow, lambda t: t.to_pandas(), lambda t: [t[:1], t[1:]]])
def test_prepare_takes_tables_of_every_library(form, tmp_path: Path) -> None:
    tables = {name: form(table) for name, table in TABLES.items()}
    dataset = smar.prepare(**tables, out=tmp_path / "made", config={"data": {"language": None, "slice_columns": []}})
    assert isinstance(dataset, Dataset)
    assert dataset.items["title"].to_pylist() == TABLES["items"]["title"].to_pylist()


def test_what_prepare_is_given_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(smar.InputError, match=r"test_from is 'soon', which is no date such as 2026-09-27"):
        smar.prepare(**TABLES, test_from="soon", out=tmp_path / "made")
    with pytest.raises(smar.InputError, match=r"data\.colour"):
        smar.prepare(**TABLES, config={"data": {"colour": 1}}, out=tmp_path / "made")
    assert not (tmp_path / "made").exists()


class Counts(TrainerCallback):
    steps = 0

    def on_step_end(self, args, state, control, **_) -> None:
        self.steps += 1


@register_fusion("doubled")
class Doubled(Fusion):
    """What the tests register, as `cross` has nothing of it."""

    def forward(self, text, image):
        return 2 * text.pooled


@register_loss("flat")
def flat(scores, target, blocked, terms):
    return scores.sum(1) * 0 + 7.0


def test_train_with_callbacks_and_what_is_registered(line: Line, tmp_path: Path) -> None:
    train = {**CONFIG["train"], "stage1": {"steps": 1, "batch_size": 32}, "stage2": {"steps": 1, "batch_size": 32}}
    train |= {"baselines": [], "loss": {"kind": "flat"}, "gate": {"mode": "none"}, "evaluate_steps": 0}
    config = {"model": {**CONFIG["model"], "fusion": "doubled"}, "train": train}
    logs, counts = [], Counts()
    run = smar.train(line.dataset, tmp_path / "run", config, callbacks=[logs.append, counts])
    assert type(run.encoder().towers.model.fusion) is Doubled
    assert counts.steps == 2
    losses = [(log["model"], log["stage"], log["step"]) for log in logs if "loss" in log]
    assert losses == [("smar", "stage1", 1), ("smar", "stage2", 1)]
    assert next(log for log in logs if "loss_text" in log)["loss_text"] == pytest.approx(7)
    with pytest.raises(smar.InputError, match="a callback is 3"):
        smar.train(line.dataset, tmp_path / "other", config, callbacks=[3])


def test_names_that_nobody_registered_or_that_are_taken() -> None:
    with pytest.raises(smar.InputError, match=r"model\.fusion is 'crss'; allowed: both, concat, cross, doubled"):
        load_settings({"model": {"fusion": "crss"}})
    with pytest.raises(smar.InputError, match=r"train\.loss\.kind.*'focal'; allowed: .*softmax"):
        load_settings({"train": {"loss": {"kind": "focal"}}})
    with pytest.raises(smar.InputError, match=r"plugins: no_such_module cannot be imported .* PYTHONPATH"):
        load_settings({"plugins": ["no_such_module"]})
    with pytest.raises(smar.InputError, match=r"has a 'cross' already"):
        register_fusion("cross")(Doubled)
    with pytest.raises(smar.InputError, match=r"needs a model_type of its own, not 'bert'"):
        register_encoder("mine", reads="text")(type("Mine", (), {"config_class": BertConfig, "fresh": None}))
    config = type("MineConfig", (BertConfig,), {"model_type": "mine"})
    with pytest.raises(smar.InputError, match=r"has a 'bag' already"):
        register_encoder("bag", reads="text")(type("Mine", (), {"config_class": config, "fresh": None}))
    register_loss("flat")(flat)  # a definition that is run again
    assert LOSSES["flat"] is flat
    assert FUSIONS["concat"].__name__ == "ConcatFusion"


def test_a_picture_is_the_same_in_every_form(encoder: smar.Encoder, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    image = Image.fromarray(array)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    image.save(buffer := io.BytesIO(), "PNG")
    (tmp_path / "plain.png").write_bytes(buffer.getvalue())
    forms = [array, image, buffer.getvalue(), str(tmp_path / "plain.png"), tmp_path / "plain.png", [image]]
    forms += [tmp_path / "turned.png", Image.open(tmp_path / "turned.png"), [array, None, float("nan")]]
    vectors = encoder.encode_item([{"title": "Dress", "image": form} for form in forms])
    assert vectors.has_image.all()
    assert np.abs(vectors.image - vectors.image[0]).max() < 1e-6
    none = encoder.encode_item([{"title": "Dress", "image": None}, {"title": "Dress"}, {"title": "Dress", "image": []}])
    assert not none.has_image.any()
    assert np.abs(none.multimodal - none.multimodal[0]).max() < 1e-6
    two = encoder.encode_item({"title": "Dress", "image": [image, Image.new("RGB", (9, 9), "red")]})
    assert np.abs(two.image - vectors.image[0]).max() > 1e-4


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"titel": "Dress"}, r"item 1 has titel; the model reads title, category, brand and image"),
        ("Dress", r"item 1 is 'Dress'; give a dict"),
        ({"title": "Dress", "image": "https://x/y.jpg"}, r"item 1: 'https://x/y.jpg' is an address; download it"),
        ({"title": "Dress", "image": "gone.jpg"}, r"item 1: the picture gone.jpg cannot be used: missing"),
        ({"title": "Dress", "image": b"GIF"}, r"item 1: the picture cannot be used: not_an_image"),
        ({"title": "Dress", "image": np.zeros((4, 4))}, r"item 1: the picture is float64 \[4, 4\]; allowed: a PIL"),
        ({"title": "Dress", "image": 7}, r"item 1: a builtins.int is no picture"),
    ],
)
def test_an_item_that_cannot_be_encoded_is_named(encoder: smar.Encoder, item: object, said: str) -> None:
    with pytest.raises(smar.InputError, match=said):
        encoder.encode_item([{"title": "Kettle"}, item])


def test_scores_are_those_of_the_index(encoder: smar.Encoder, index: smar.Index, line: Line) -> None:
    items = Dataset.open(line.dataset).items.slice(0, 5).to_pylist()
    for item in items:
        item["image"] = line.shop / "images" / f"{item['item_id']}.jpg" if item["image_status"] == "ok" else None
    vectors = encoder.encode_item(items)
    for mode in ("text", "multimodal", "route"):
        scores = encoder.score(["red dress", "kettle"], vectors, mode)
        found = index.search("kettle", 200, mode, f"item_id in ({', '.join(item['item_id'] for item in items)})")
        there = {hit.item_id: hit.score for hit in found.hits}
        assert [there[item["item_id"]] for item in items] == pytest.approx(scores[1].tolist(), abs=1e-4)
    two = encoder.encode_query("kettle")
    share = two.image_probability[0]
    parts = [encoder.score(two, vectors, mode) for mode in ("multimodal", "text")]
    assert np.allclose(encoder.score(two, vectors), share * parts[0] + (1 - share) * parts[1], atol=1e-6)
    with pytest.raises(smar.InputError, match="hybrid"):
        encoder.score("kettle", vectors, "hybrid")
    with pytest.raises(smar.InputError, match="mode is 'words'; allowed: adaptive"):
        encoder.score("kettle", vectors, "words")
    with pytest.raises(smar.InputError, match="query 1 is 3"):
        encoder.encode_query(["kettle", 3])


def test_nothing_to_encode_is_nothing(encoder: smar.Encoder) -> None:
    assert encoder.encode_query([]).embedding.shape == (0, encoder.dim)
    assert encoder.score([], []).shape == (0, 0)


def test_a_stage_alone_frames_pictures_as_its_run(encoder: smar.Encoder, line: Line) -> None:
    alone = smar.load(line.run / "stage2", device="cpu")
    item = {"title": "Dress", "image": Image.effect_noise((30, 70), 90)}
    assert np.array_equal(alone.encode_item(item).multimodal, encoder.encode_item(item).multimodal)
    assert alone.fingerprint == encoder.fingerprint


def test_what_cannot_be_loaded(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(smar.InputError, match=r"shop/search is no folder here, and the hub gives no model"):
        smar.load("shop/search")
    with pytest.raises(smar.InputError, match=r"manifest.json is missing"):
        smar.load(tmp_path)
    with pytest.raises(smar.InputError, match=r"has no baseline clip"):
        smar.load(line.run, "clip")
    with pytest.raises(smar.InputError, match=r"single model and has no baseline"):
        smar.load(line.run / "stage2", "dpsr")


def test_an_index_of_arrays(encoder: smar.Encoder, tmp_path: Path) -> None:
    rows = [{"item_id": "a", "title": "Red dress", "price": 20.0, "image": None}, {"item_id": "b", "title": "Kettle"}]
    vectors = encoder.encode_item(rows)
    index = smar.Index.build(
        {"text": vectors.text.tolist(), "multimodal": vectors.served},
        tmp_path / "index",
        items=pandas.DataFrame(rows).drop(columns="image"),
        encoder=encoder,
    )
    hits = index.search("dress", filter="price>10").hits
    assert [(hit.item_id, hit.payload["price"]) for hit in hits] == [("a", 20.0)]
    score = encoder.score("dress", vectors, "text")[0]
    assert index.search("dress", mode="text").hits[0].score == pytest.approx(score.max(), abs=1e-4)
    wrong = [
        ({"items": None}, "need items="),
        ({"items": [{"title": "x"}] * 2}, "have no item_id"),
        ({"items": rows[:1]}, r"the text vectors are \[2, 32\]; 1 items of this model have \[1, 32\]"),
        ({"items": [rows[0], rows[0]]}, "there twice"),
        ({"items": 3}, "the items are a int"),
    ]
    for given, said in wrong:
        with pytest.raises(smar.InputError, match=said):
            smar.Index.build(vectors, tmp_path / "other", **{"items": rows, "encoder": encoder} | given)
    with pytest.raises(smar.InputError, match="row 0 of text is not a unit vector"):
        smar.Index.build(
            {"text": 2 * vectors.text, "multimodal": vectors.text}, tmp_path / "o", items=rows, encoder=encoder
        )
    with pytest.raises(smar.InputError, match="the vectors lack multimodal"):
        smar.Index.build({"text": vectors.text}, tmp_path / "other", items=rows, encoder=encoder)
    assert not (tmp_path / "other").exists()


def test_search_arranges(index: smar.Index) -> None:
    found = index.search("dress", k=5, sort="price", facets="category", filter="price<100")
    prices = [hit.payload["price"] for hit in found.hits]
    assert prices == sorted(prices)
    assert found.page.facets is not None
    with pytest.raises(smar.InputError, match="mode is 'words'"):
        index.search("dress", mode="words")
    with pytest.raises(smar.InputError, match="mysql:// is no engine that smar knows"):
        smar.Index.open("mysql://shop/x")
