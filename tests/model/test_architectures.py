"""Every architecture trains, is saved, loaded and exported, or is refused with a sentence before the first step."""

import numpy as np
import pytest
import torch
import transformers as hf
from onnx import load

from checkpoints import PAIRS, SIDE, SIZES, TEXTS, VISIONS, checkpoint, clip_tokens, qwen_tokens, word_pieces
from smar.core.errors import InputError
from smar.core.settings import load_settings
from smar.export.check import refuse_constant
from smar.export.onnx import PROBE, export_query
from smar.model.encoder import Encoder
from smar.model.processing import build_processor
from smar.model.start import freeze, new_model
from smar.search.query import QueryEncoder

FIELDS = [["red dress", "a long steel kettle 1.7 l for men", "shoe"], ["acme", "", ""], ["", "", ""]]
PICTURES = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
SHOWN = np.array([True, False, True])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


def start(folder, *towers: str, more=()) -> Encoder:
    small = [f"model.vision.{size}" for size in ("hidden=16", "layers=1")] if "vision" not in towers else []
    names = ["model.pretrained"] if not towers else [f"model.{tower}.pretrained" for tower in towers]
    chosen = [*(f"{name}={folder}" for name in names), f"data.image_size={SIDE}", *small, *more]
    if towers == ("vision",):
        chosen += [f"model.{tower}.{size}" for tower in ("query", "text") for size in ("hidden=32", "layers=1")]
    settings = load_settings(None, chosen)
    processor = build_processor(settings.model, SIDE, FIELDS[0])
    torch.manual_seed(0)
    model = new_model(settings, settings.model, processor)
    freeze(model, settings.model)
    return Encoder(model, processor)


def step(encoder: Encoder) -> float:
    """One step in bfloat16, as training takes it; how far the towers' weights moved."""
    model, config = encoder.model.train(), encoder.config
    before = [p.detach().clone() for p in model.query_tower.encoder.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        query = model.encode_query_ids(*encoder._pad(encoder.processor.query_ids(FIELDS[0], config)))
        words = encoder._pad(encoder.processor.item_ids(FIELDS, config))
        item = model.encode_item_ids(*words, encoder.processor.pixels(PICTURES), torch.from_numpy(SHOWN))
        loss = (query.embedding * (item.multimodal + item.text + item.image)).sum() + query.gate_logit.sum()
    loss.backward()
    missing = [name for name, p in model.image_tower.named_parameters() if p.grad is None and "pooler" not in name]
    assert len(missing) <= 4, missing  # such as a mask token that no picture shows
    optimizer.step()
    model.eval()
    return max(
        float((p - old).abs().max()) for p, old in zip(model.query_tower.encoder.parameters(), before, strict=True)
    )


def goes_through(encoder: Encoder, folder, export=True) -> None:
    assert step(encoder) > 0
    encoder.model.save_pretrained(folder)
    encoder.processor.save_pretrained(folder)
    again = Encoder.from_pretrained(folder)
    weights, loaded = encoder.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(weights[name], loaded[name]) for name in weights)
    item, same = (e.encode_item(FIELDS, PICTURES, SHOWN) for e in (encoder, again))
    for vectors, found in ((item.text, same.text), (item.image, same.image), (item.multimodal, same.multimodal)):
        assert torch.isfinite(vectors).all()
        assert torch.allclose(vectors, found, atol=1e-4)  # other memory layouts, other rounding
    if export:
        assert torch.is_autocast_cache_enabled()
        export_query(again, folder / "query", PROBE)  # compares with PyTorch to 1e-5
        assert torch.is_autocast_cache_enabled()  # as it was: what is trained afterwards is the same, bit for bit
        found = QueryEncoder.load(folder / "query").encode(FIELDS[0])
        assert np.abs(found.embedding - encoder.encode_queries(FIELDS[0])[0]).max() < 1e-5


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_encoder_goes_from_training_to_the_runtime(root, tmp_path, name):
    goes_through(start(checkpoint(name, root), "query", "text"), tmp_path)


@pytest.mark.parametrize("name", VISIONS)
def test_a_vision_encoder_goes_through_training(root, tmp_path, name):
    goes_through(start(checkpoint(name, root), "vision"), tmp_path, export=False)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_goes_from_training_to_the_runtime(root, tmp_path, name):
    goes_through(start(checkpoint(name, root)), tmp_path)


def test_parts_of_a_pair_may_be_taken_alone(root):
    encoder = start(checkpoint("siglip2", root), "vision")
    assert encoder.config.head("image_tower").layers == ((128, True, ""),)  # aligned with no text tower here
    words = start(checkpoint("chinese_clip", root), "query", "text")
    assert (words.config.dim, words.config.residual) == (24, "text")


@pytest.mark.parametrize(("name", "fused"), [("minilm", True), ("siglip", True), ("clip", False), ("qwen3", False)])
def test_attention_is_fused_where_the_operator_knows_it(root, tmp_path, name, fused):
    encoder = start(checkpoint(name, root), *(() if name in PAIRS else ("query", "text")))
    export_query(encoder, tmp_path, PROBE)
    operators = [node.op_type for node in load(tmp_path / "model.onnx").graph.node]
    assert (operators.count("Attention") == 2) == fused
    assert ("Softmax" in operators) != fused


def test_a_causal_encoder_pooled_by_its_first_token_is_refused(root):
    causal = start(checkpoint("qwen3", root), "query", "text", more=["model.pooling=cls"])
    with pytest.raises(InputError, match=r"gives different texts the same vector.*model.pooling=own, last or mean"):
        refuse_constant(causal)
    refuse_constant(start(checkpoint("qwen3", root), "query", "text"))


def saved(folder, model, *parts):
    for part in (model, *parts):
        part.save_pretrained(folder)
    return folder


def test_what_cannot_be_a_tower_is_refused_with_a_sentence(tmp_path, root):
    words = word_pieces()
    bart = hf.BartConfig(vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16)
    folder = saved(tmp_path / "bart", hf.BartModel(bart), words)
    with pytest.raises(InputError, match="is an encoder-decoder"):
        start(folder, "query", "text")
    text = {
        **SIZES,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 60,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 32,
        "deepstack_visual_indexes": [0],
    }
    config = hf.Qwen3VLConfig(text_config=text, vision_config=vision)
    folder = saved(
        tmp_path / "qwen3-vl",
        hf.Qwen3VLModel(config),
        qwen_tokens(),
        hf.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}),
    )
    with pytest.raises(InputError, match=r"qwen3-vl \(Qwen3VLModel\).*takes pixel_values"):
        start(folder, "vision")
    with pytest.raises(InputError, match="takes a dual encoder"):
        start(folder)
    folder = saved(tmp_path / "slow", hf.CLIPTextModel(hf.CLIPTextConfig(**SIZES, vocab_size=len(clip_tokens()))))
    with pytest.raises(InputError, match=r"the tokenizer of .*slow cannot be loaded"):
        start(folder, "query", "text")
