"""The whole line, tried before a model is trained: what would fail hours later fails now."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from smar.core.errors import InputError
from smar.data.dataset import Dataset
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
        mend = ": set train.bf16=false" if encoder.precision == "bfloat16" else ""
        raise InputError(f"the model's vectors are not finite in {encoder.precision}{mend}.")
    refuse_constant(encoder)
    with tempfile.TemporaryDirectory(prefix="smar-check-") as folder:
        export_query(encoder, Path(folder), [*PROBE, *longest])


def refuse_constant(encoder: Encoder) -> None:
    """Raises InputError where a vector depends on the first token alone, as a causal encoder's first state does."""
    first, *others = encoder.processor.token_ids([PROBE[1]], 6)[0]
    size = len(encoder.processor.tokenizer)
    texts = [[first, *others], [first, *((token + 1) % size for token in others)]]
    for tower in {name for name in ("query_tower", "text_tower") if hasattr(encoder.model, name)}:
        with torch.inference_mode():  # one by one: equal numbers then go the same way, to the last bit
            pooled = [getattr(encoder.model, tower)(*encoder._pad([ids]))[1] for ids in texts]
        if others and torch.equal(*pooled):
            raise InputError(
                f"the {tower.replace('_', ' ')} gives different texts the same vector: its first state, which "
                f"model.pooling={encoder.model.query_tower.head.pooling} takes, has seen the first token only. Set "
                "model.pooling=own, last or mean."
            )
