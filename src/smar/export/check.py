"""The whole line, tried before a model is trained: what would fail hours later fails now."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from smar.data.dataset import Dataset
from smar.errors import InputError
from smar.export.onnx import PROBE, export_query
from smar.model.encoder import Encoder

_ITEMS = 4


def try_line(encoder: Encoder, dataset: Dataset, queries: Sequence[str]) -> None:
    """Encode the longest queries and items and a few pictures, export the query tower, open it and compare.

    Args:
        encoder: the untrained model, in the precision that it is trained in.
        dataset: that it will be trained on.
        queries: of its training pairs.

    Raises:
        InputError: a part cannot do what the line needs; the message says which.
    """
    longest = sorted(queries, key=len)[-_ITEMS:]
    fields = dataset.fields(tuple(encoder.config.text_fields))
    rows = np.argsort([sum(map(len, values)) for values in zip(*fields, strict=True)], kind="stable")[-_ITEMS:]
    try:
        vectors = next(
            encoder.encode_items(
                [[field[row] for row in rows] for field in fields], dataset.images, dataset.image_row[rows]
            )
        )
        found = [vectors.text, vectors.image, vectors.multimodal, encoder.encode_queries([*PROBE, *longest])[0]]
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"the model cannot encode this dataset: {type(error).__name__}: {error}") from None
    if not all(np.isfinite(part).all() for part in found):
        precision = "bfloat16: set train.bf16=false" if encoder.bf16 else "float32"
        raise InputError(f"the model's vectors are not finite in {precision}.")
    refuse_constant(encoder)
    with tempfile.TemporaryDirectory(prefix="smar-check-") as folder:
        export_query(encoder, Path(folder), [*PROBE, *longest])


def refuse_constant(encoder: Encoder) -> None:
    """Raises InputError where a vector depends on the first token alone, as a causal encoder's first state does."""
    exact = Encoder(encoder.model, encoder.processor)
    ids, mask = exact._pad([exact.processor.token_ids([text], 6)[0] for text in (PROBE[1], PROBE[3])])
    ids, mask = ids[:, : int(mask.sum(1).min())], mask[:, : int(mask.sum(1).min())]
    ids[:, 0] = ids[0, 0]
    for tower in {name for name in ("query_tower", "text_tower") if hasattr(encoder.model, name)}:
        with torch.inference_mode():
            pooled = getattr(encoder.model, tower)(ids, mask)[1]
        if torch.allclose(pooled[0], pooled[1], atol=1e-6):
            raise InputError(
                f"the {tower.replace('_', ' ')} gives different texts the same vector: its first state, which "
                f"model.pooling={encoder.model.query_tower.head.pooling} takes, has seen the first token only. Set "
                "model.pooling=own, last or mean."
            )
