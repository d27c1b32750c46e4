"""The query path as one ONNX graph: tokens -> tower -> pooling -> normalisation -> embedding and image probability."""

import contextlib
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from smar.core.errors import InputError
from smar.core.files import StrPath, sha256
from smar.data.text import normalise
from smar.data.voices import VOICES_FILE
from smar.export.fused import OPERATORS, fused, straighten
from smar.model.encoder import Encoder
from smar.model.modeling import SmarModel
from smar.model.tokenizer import unknown_ids
from smar.search.query import INPUTS, MODEL_FILE, OUTPUTS, TOKENIZER_FILE, QueryEncoder, QueryManifest

TOLERANCE = 1e-5
PROBE = [
    "red",
    "red dress for women",
    "kettle 1.7 l",
    "a long query of many words " * 4,
    "☃",
    "42",
    "红色连衣裙",
    "สีแดง",
]
"""Texts of several lengths to compare the graph with PyTorch on, where no real queries are at hand."""


class _QueryPath(nn.Module):
    def __init__(self, model: SmarModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        query = self.model.encode_query_ids(ids, mask)
        return query.embedding, query.image_probability


def export_query(encoder: Encoder, out: StrPath, probe: list[str]) -> QueryManifest:
    """Write the query encoder folder `out` and compare it with PyTorch on the queries `probe`.

    The graph has fused attention where that gives PyTorch's vectors: the fused operator knows neither causal masks nor
    grouped heads nor relative positions. Elsewhere it has the encoder's own operators.

    Raises:
        InputError: the graph's vectors differ from PyTorch's by more than 1e-5, or the tower cannot be exported.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    encoder.processor.tokenizer.backend_tokenizer.save(str(out / TOKENIZER_FILE))
    with contextlib.suppress(RuntimeError, ValueError, TypeError, IndexError, InputError):
        with fused(encoder.model.query_tower.encoder):
            _trace(encoder.model, out, OPERATORS)
        straighten(out / MODEL_FILE)
        return _checked(encoder, out, probe)
    try:
        _trace(encoder.model, out, None)
    except (RuntimeError, ValueError, TypeError, IndexError, torch.onnx.OnnxExporterError) as error:
        name = type(encoder.model.query_tower.encoder).__name__
        raise InputError(
            f"the query tower ({name}) cannot be written as an ONNX graph, which answers queries: {error}"
        ) from None
    return _checked(encoder, out, probe)


def _trace(model: SmarModel, out: Path, operators: dict[str, int] | None) -> None:
    ids, mask = torch.ones(2, 7, dtype=torch.long), torch.ones(2, 7, dtype=torch.long)
    axes = {name: {0: "queries", 1: "tokens"} for name in INPUTS} | {name: {0: "queries"} for name in OUTPUTS}
    cached = torch.is_autocast_cache_enabled()
    with warnings.catch_warnings(), torch.no_grad(), contextlib.ExitStack() as left:
        left.callback(torch.set_autocast_cache_enabled, cached)  # a failed trace leaves it off, and training differs
        warnings.simplefilter("ignore")  # the tracer warns about shapes that are constant for a query tower
        torch.onnx.export(
            _QueryPath(model).cpu().eval(),
            (ids, mask),
            str(out / MODEL_FILE),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            dynamo=False,
            custom_opsets=operators,
        )


def _checked(encoder: Encoder, out: Path, probe: list[str]) -> QueryManifest:
    """The manifest of the files in `out`, written, and the graph compared with PyTorch."""
    tokenizer = encoder.processor.tokenizer
    names = [MODEL_FILE, TOKENIZER_FILE]
    if encoder.voices is not None:
        encoder.voices.write(out)
        names.append(VOICES_FILE)
    manifest = QueryManifest(
        fingerprint=encoder.fingerprint,
        kind=encoder.config.kind,
        dim=encoder.config.dim,
        max_length=encoder.config.query_length,
        pad_id=tokenizer.pad_token_id or 0,
        unknown_ids=unknown_ids(tokenizer),
        prefix=encoder.config.query_prefix,
        threshold=encoder.config.threshold,
        files={name: sha256(out / name) for name in names},
    )
    manifest.write(out)
    exact = Encoder(encoder.model, encoder.processor)  # float32, as the graph
    embedding, probability = exact.encode_queries(probe)
    vectors = QueryEncoder.load(out).encode(list(map(normalise, probe)))
    worst = max(abs(vectors.embedding - embedding).max(), abs(vectors.image_probability - probability).max())
    if not worst <= TOLERANCE:
        raise InputError(f"the exported query tower differs from PyTorch by {worst:.1e} (allowed {TOLERANCE:.0e}).")
    return manifest
