"""A shop without pictures: what `smar train` proposes for it, and the whole line with it."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel

from smar.core.settings import Settings, load_settings
from smar.data.dataset import Dataset
from smar.demo.shop import generate_shop
from smar.model.bag import BagConfig, BagModel, bags, weigh
from smar.model.encoder import Encoder
from smar.model.processing import build_processor
from smar.model.run_folder import load_encoder, run_settings
from smar.model.start import new_model
from smar.model.tokens import TokenTable
from smar.training.recipe import propose
from tiny_line import found, smar

BAG = [f"model.{tower}.{key}" for tower in ("query", "text") for key in ("kind=bag", "hidden=256")]
TITLES = [
    "red cotton dress",
    "blue cotton dress",
    "red leather shoe",
    "green wool hat",
    "blue denim jeans",
    "steel kettle 1.7 l",
]


def fresh(*assignments: str, weighed: bool = True) -> Encoder:
    settings = load_settings(
        None,
        [
            "model.kind=dpsr",
            "train.baselines=[]",
            "model.dim=256",
            "model.vocabulary=300",
            "data.text_fields=[title]",
            *BAG,
            *assignments,
        ],
    )
    processor = build_processor(settings.model, settings.data.image_size, TITLES)
    torch.manual_seed(0)
    model = new_model(settings, settings.model, processor)
    if weighed:
        for bag in bags(model):
            weigh(bag, TokenTable.from_lists(processor.item_ids([TITLES], model.config), 0))
    return Encoder(model, processor)


def scores(encoder: Encoder, query: str) -> np.ndarray:
    nothing = np.zeros((0, 64, 64, 3), np.uint8)
    items = encoder.encode_item([TITLES], nothing, np.zeros(len(TITLES), bool)).text.numpy()
    return items @ encoder.encode_queries([query])[0][0]


def test_an_untrained_bag_ranks_by_shared_rare_words():
    encoder = fresh()
    assert scores(encoder, "kettle").argmax() == 5
    dress = scores(encoder, "red cotton dress")
    assert dress.argsort()[::-1][:2].tolist() == [0, 1], "all words, then two of three"
    assert dress[1] > dress[2:].max() + 0.2
    assert scores(encoder, "red cotton dress")[0] > 0.99


def test_towers_that_share_nothing_begin_alike_too():
    assert scores(fresh("model.share_text=false"), "green wool hat")[3] > 0.99


def test_a_token_that_no_item_holds_says_nothing_and_a_rare_one_most():
    bag = BagModel(BagConfig(vocab_size=6, hidden_size=8))
    weigh(bag, TokenTable.from_lists([[1, 2], [1, 3], [1, 3, 3]], 0))
    length = bag.embeddings.weight.detach().norm(dim=1)
    assert length[4] == 0
    assert length[5] == 0
    assert length[2] > length[3] > length[1] > 0


def test_a_bag_is_saved_as_other_encoders_are(tmp_path):
    bag = BagModel(BagConfig(vocab_size=20, hidden_size=8))
    bag.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    ids = torch.tensor([[3, 4, 0]])
    assert torch.equal(again(ids).last_hidden_state, bag(ids).last_hidden_state)
    bag.resize_token_embeddings(25)
    assert bag.get_input_embeddings().num_embeddings == 25


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """The generated shop as a table without pictures."""
    root = tmp_path_factory.mktemp("words")
    generate_shop(root / "shop", 200, 1500, 0)
    items = pq.read_table(root / "shop" / "items.parquet").select(["item_id", "title", "category", "brand"])
    pq.write_table(items, root / "items.parquet")
    done = smar(
        "prepare",
        "--items",
        root / "items.parquet",
        "--clicks",
        root / "shop" / "clicks.parquet",
        "--out",
        root / "dataset",
    )
    assert done.code == 0, done.err
    return root / "dataset"


def test_the_proposal_is_a_base_and_says_why(dataset):
    opened = Dataset.open(dataset)
    base, told = propose(opened, Settings())
    assert (base.model.kind, base.model.query.kind, base.train.baselines) == ("dpsr", "bag", ())
    assert base.train.stage1.steps == 300
    assert base.train.stage2.steps == 0
    assert "no pictures" in told[0]
    assert "200 items" in told[0]
    assert any("model.kind=dpsr" in line for line in told)


@pytest.mark.parametrize(
    ("assignment", "kind", "text"),
    [
        ("model.kind=smar", "smar", "bert"),
        ("model.kind=dpsr", "dpsr", "bag"),
        ("train.baselines=[{kind: dpsr}]", "smar", "bert"),
        ("model.query.pretrained=somewhere", "dpsr", "bert"),
        ("model.query.hidden=64", "dpsr", "bert"),
        ("train.stage1.steps=7", "dpsr", "bag"),
    ],
)
def test_what_is_described_is_not_proposed(dataset, assignment, kind, text):
    asked = [assignment, *(["model.share_text=false"] if "query" in assignment else [])]
    asked += ["train.baselines=[]"] if "kind=dpsr" in assignment and "baselines" not in assignment else []
    base, _ = propose(Dataset.open(dataset), load_settings(None, asked))
    assert (base.model.kind, base.model.query.kind) == (kind, text)


def test_a_shop_with_pictures_learns_them_beside_a_bag(line):
    base, told = propose(Dataset.open(line.root / "dataset"), Settings())
    assert (base.model.kind, base.model.query.kind, base.model.text.kind) == ("smar", "bag", "bag")
    assert (base.train.stage1.weights.image, base.train.pictures.augment) == (1.0, True)
    assert base.train.baselines == Settings().train.baselines
    assert "with a picture of 32 px" in told[0]
    assert any("model.query and model.text" in line for line in told)


@pytest.mark.parametrize("assignment", ["model.vision.hidden=64", "model.pretrained=somewhere"])
def test_who_describes_a_tower_of_a_pictured_shop_gets_it(line, assignment):
    base, told = propose(Dataset.open(line.root / "dataset"), load_settings(None, [assignment]))
    assert base == Settings()
    assert len(told) == 1


def test_the_whole_line_with_a_bag(dataset, tmp_path):
    quick = ["train.stage1.steps=40", "train.stage1.batch_size=64", "train.threads=1", "train.evaluate_steps=20"]
    done = smar("train", dataset, "--out", tmp_path / "run", *(word for one in quick for word in ("--set", one)))
    assert done.code == 0, done.err
    assert "from scratch a bag of tokens" in done.out + done.err
    settings = run_settings(tmp_path / "run")
    assert settings.model.query.kind == "bag"
    assert settings.train.stage1.steps == 40
    encoder, opened = load_encoder(tmp_path / "run"), Dataset.open(dataset)
    title = str(opened.items["title"][5])
    hits = found(tmp_path / "run", dataset, tmp_path, title)
    assert str(opened.items["item_id"][5]) in [hit["item_id"] for hit in hits]
    assert encoder.voices is not None, "BM25 is a voice beside the vectors"

    more = smar(
        "train", dataset, "--out", tmp_path / "next", "--from", tmp_path / "run", "--set", "train.stage1.steps=3"
    )
    assert more.code == 0, more.err
