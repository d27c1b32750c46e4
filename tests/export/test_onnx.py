"""The exported query path gives PyTorch's vectors at every length."""

import numpy as np
import pytest
import torch
from onnx import load
from transformers import ModernBertConfig, ModernBertModel
from transformers.models.bert.modeling_bert import BertEmbeddings

from smar.core.errors import InputError
from smar.core.sections.model import ModelSettings
from smar.export import onnx
from smar.model.configuration import build_config
from smar.model.encoder import Encoder
from smar.model.modeling import SmarModel
from smar.model.processing import build_processor
from smar.search.query import QueryEncoder

QUERIES = ["red", "red dress for women", "kettle 1.7 l steel with a very long handle and a red lid " * 3, "☃", "dress"]
SMALL = {"layers": 2, "hidden": 32, "heads": 2}


def encoder(kind, pooling):
    settings = ModelSettings(kind=kind, dim=16, pooling=pooling, query=SMALL, text=SMALL, vision=SMALL)
    processor = build_processor(settings, 32, ["red dress for women", "kettle 1.7 l steel long handle lid"])
    config = build_config(settings, 32, len(processor.tokenizer), ("title",), 0.1)
    torch.manual_seed(0)
    return Encoder(SmarModel._from_config(config, attn_implementation="eager"), processor, fingerprint="abc123")


@pytest.mark.parametrize(("kind", "pooling"), [("smar", "mean"), ("smar", "cls"), ("dpsr", "mean"), ("dpsr-i", "mean")])
def test_graph_equals_pytorch_alone_and_in_batches(tmp_path, kind, pooling):
    torch_encoder = encoder(kind, pooling)
    manifest = onnx.export_query(torch_encoder, tmp_path, QUERIES)
    graph = QueryEncoder.load(tmp_path)
    embedding, probability = torch_encoder.encode_queries(QUERIES)
    together = graph.encode(QUERIES)
    assert np.abs(together.embedding - embedding).max() < 1e-5
    assert np.abs(together.image_probability - probability).max() < 1e-5
    for row, query in enumerate(QUERIES):
        assert np.abs(graph.encode([query]).embedding[0] - embedding[row]).max() < 1e-5
    assert (manifest.fingerprint, manifest.kind, manifest.dim, manifest.max_length) == ("abc123", kind, 16, 30)


def test_an_export_that_differs_from_pytorch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match="differs from PyTorch"):
        onnx.export_query(encoder("smar", "mean"), tmp_path, QUERIES)


def test_attention_is_one_operator_and_positions_one_table(tmp_path):
    """Two layers: two operators, no splitting of heads, no numbering of tokens; the model itself stays as it was."""
    torch_encoder = encoder("smar", "mean")
    onnx.export_query(torch_encoder, tmp_path, QUERIES)
    operators = [node.op_type for node in load(tmp_path / "model.onnx").graph.node]
    assert operators.count("Attention") == SMALL["layers"]
    assert not {"Softmax", "Transpose", "GatherElements"} & set(operators)
    query = torch_encoder.model.query_tower.encoder
    assert query.config._attn_implementation == "eager"
    assert type(query.embeddings) is BertEmbeddings


def test_an_encoder_that_turns_heads_keeps_products_of_its_own(tmp_path):
    """Rotary positions lie between the projections and the operator, so it cannot project itself."""
    torch_encoder = encoder("smar", "mean")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")}
    vocabulary = len(torch_encoder.processor.tokenizer)
    config = ModernBertConfig(vocab_size=vocabulary, attn_implementation="eager", **sizes, **tokens)
    torch_encoder.model.query_tower.encoder = ModernBertModel(config).eval()
    onnx.export_query(torch_encoder, tmp_path, QUERIES)
    operators = [node.op_type for node in load(tmp_path / "model.onnx").graph.node]
    assert (operators.count("MultiHeadAttention"), operators.count("Attention")) == (2, 0)
    together, (embedding, _) = QueryEncoder.load(tmp_path).encode(QUERIES), torch_encoder.encode_queries(QUERIES)
    assert np.abs(together.embedding - embedding).max() < 1e-5
