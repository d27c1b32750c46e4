"""Attention as one operator of ONNX Runtime instead of some thirty small ones, and tokens numbered by one table.

A query has a handful of tokens, so its time goes into the operators' overhead: queries, keys and values are one
product, too, and the graph does not number the tokens as transformers does.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.onnx import register_custom_op_symbolic, symbolic_helper  # type: ignore[attr-defined]
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.models.bert.modeling_bert import BertEmbeddings

_DOMAIN, _OPERATOR, _PACKED = "com.microsoft", "MultiHeadAttention", "Attention"
OPERATORS = {_DOMAIN: 1}
"""Operator set of the exported graph beside ONNX's own."""
_NAME = "smar_onnx_fused"


@torch.library.custom_op("smar::multi_head_attention", mutates_args=())
def _multi_head_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, heads: int, scale: float) -> Tensor:
    """Inputs [n, tokens, heads * d], mask int32 [n, tokens], 1 for what may be looked at; [n, tokens, heads * d]."""
    q, k, v = (part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in (query, key, value))
    seen = mask[:, None, None, :] > 0
    out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    return out.transpose(1, 2).flatten(2).contiguous()


@symbolic_helper.parse_args("v", "v", "v", "v", "i", "f")
def _symbolic(g: Any, query: Any, key: Any, value: Any, mask: Any, heads: int, scale: float) -> Any:
    """The operator of ONNX Runtime; its optional bias is left out."""
    bias = symbolic_helper._optional_input_placeholder_tensor(g)  # type: ignore[no-untyped-call]
    out = g.op(f"{_DOMAIN}::{_OPERATOR}", query, key, value, bias, mask, num_heads_i=heads, scale_f=scale)
    return out.setType(query.type())


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: [n, heads, tokens, d] each, out [n, tokens, heads, d]."""
    heads, dim = query.shape[1], query.shape[-1]
    joined = [part.transpose(1, 2).flatten(2) for part in (query, key, value)]
    scale = float(dim**-0.5 if scaling is None else scaling)
    out = torch.ops.smar.multi_head_attention(*joined, attention_mask.to(torch.int32), heads, scale)
    return out.reshape(*out.shape[:2], heads, dim), None


def _mask(*_: Any, attention_mask: Tensor, **__: Any) -> Tensor:
    return attention_mask


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, _mask)
register_custom_op_symbolic("smar::multi_head_attention", _symbolic, 17)


class _Embeddings(nn.Module):
    """What BERT makes of token ids [n, tokens] that are numbered from 0 and of one type: [n, tokens, h]."""

    places: Tensor

    def __init__(self, of: BertEmbeddings) -> None:
        super().__init__()
        self.words, self.norm = of.word_embeddings, of.LayerNorm
        self.register_buffer("places", of.position_embeddings.weight + of.token_type_embeddings.weight[0])

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        normed: Tensor = self.norm(self.words(input_ids) + self.places[: input_ids.shape[1]])
        return normed


@contextlib.contextmanager
def fused(encoder: Any) -> Iterator[None]:
    """Let a transformers encoder use few operators while it is exported; what is of another kind stays as it is."""
    before, embeddings = encoder.config._attn_implementation, getattr(encoder, "embeddings", None)
    with contextlib.suppress(ValueError):  # an architecture with attention of its own
        encoder.set_attn_implementation(_NAME)
    if type(embeddings) is BertEmbeddings:
        encoder.embeddings = _Embeddings(embeddings)
    try:
        yield
    finally:
        encoder.set_attn_implementation(before)
        if embeddings is not None:
            encoder.embeddings = embeddings


class _Graph:
    """A graph's nodes and initial values by the names of what they give."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.made_by = {name: node for node in graph.node for name in node.output}
        self.values = {value.name: value for value in graph.initializer}

    def source(self, name: str, through: Sequence[str]) -> str:
        """Where a name comes from, behind nodes of some kinds."""
        while name in self.made_by and self.made_by[name].op_type in through:
            name = self.made_by[name].input[0]
        return name

    def straight(self, name: str) -> str:
        """The same without heads being split and joined again; as it is where something happens in between."""
        through, at = [], name
        while self._kind(at) in ("Reshape", "Transpose"):
            through.append(self._kind(at))
            at = self.made_by[at].input[0]
        undone = all(through.count(kind) % 2 == 0 for kind in ("Reshape", "Transpose"))
        return at if undone else name

    def value(self, name: str) -> Any:
        """An initial value as an array; None when the name is computed."""
        value = self.values.get(self.source(name, ("Identity",)))
        return None if value is None else onnx.numpy_helper.to_array(value)

    def projection(self, name: str) -> tuple[str, Any, Any] | None:
        """Input, weights [h, d] and bias [d] of ``x W + b``; None where it is something else."""
        if self._kind(name) != "Add":
            return None
        product, bias = sorted(self.made_by[name].input, key=lambda part: self._kind(part) != "MatMul")
        if self._kind(product) != "MatMul":
            return None
        x, weights = self.made_by[product].input
        values = self.value(weights), self.value(bias)
        return None if any(value is None for value in values) else (x, *values)

    def _kind(self, name: str) -> str:
        return str(self.made_by[name].op_type) if name in self.made_by else ""

    def prune(self) -> None:
        """Take out what nobody reads any more; ONNX Runtime would run it."""
        wanted, kept = {output.name for output in self.graph.output}, []
        for node in reversed(self.graph.node):
            if wanted & set(node.output):
                wanted.update(node.input)
                kept.append(node)
        values = [value for value in self.graph.initializer if value.name in wanted]
        for field, left in ((self.graph.node, reversed(kept)), (self.graph.initializer, values)):
            del field[:]
            field.extend(left)


def straighten(file: Path) -> None:
    """Take out the reshapes around the operator, as transformers splits heads that it joins again, and pack it."""
    model = onnx.load(file)
    graph = _Graph(model.graph)
    for node in model.graph.node:
        if node.op_type == _OPERATOR:
            for at in range(3):
                node.input[at] = graph.straight(node.input[at])
        elif node.op_type not in ("Reshape", "Shape") and node.input:
            first = graph.source(node.input[0], ("Reshape",))
            if first in graph.made_by and graph.made_by[first].op_type == _OPERATOR:
                node.input[0] = first
    for node in model.graph.node:
        if node.op_type == _OPERATOR:
            _pack(graph, node)
    graph.prune()
    onnx.save(model, file)


def _pack(graph: _Graph, node: onnx.NodeProto) -> None:
    """Let the operator project queries, keys and values itself, in one product, where they come from the same input."""
    found = list(filter(None, map(graph.projection, node.input[:3])))
    if len(found) < 3 or len({source for source, _, _ in found}) > 1:
        return
    (source, *_), weights, biases = zip(*found, strict=True)
    packed = {f"{node.name}.weights": np.concatenate(weights, axis=1), f"{node.name}.bias": np.concatenate(biases)}
    graph.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in packed.items())
    inputs = [source, *packed, node.input[4]]
    node.op_type = _PACKED
    del node.input[:]
    node.input.extend(inputs)
