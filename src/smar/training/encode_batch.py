"""Encode a batch in shares: over processes, and, with gradient caching, one small part after the other.

Gradient caching (GradCache): a contrastive loss needs all vectors of the batch at once, but not all activations.
Each part is encoded without keeping activations; when the loss's gradient with respect to its vectors is known, the
part is encoded again, random numbers replayed, and its gradient flows on. That is activation checkpointing with parts
of the batch instead of layers, so torch's own checkpoint does it; peak memory is that of one part.

Exact for towers that treat every example alone. A convolutional tower with batch normalisation normalises every part
by the part's own pictures: parts are strided (0, C, 2C, ...), so that neighbours in the catalogue, which look alike,
do not stand in one part.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smar.model.modeling import ItemOutput, QueryOutput
from smar.model.ragged import pictures_of
from smar.training.distributed import gather_rows, rank, world

Batch = dict[str, Any]
Encode = Callable[[Batch], tuple[QueryOutput, ItemOutput]]
Output = TypeVar("Output", QueryOutput, ItemOutput)
QUERY_ROWS = ("query_ids", "query_mask")
ITEM_ROWS = ("item_ids", "item_mask", "has_image")


def share(batch: Batch, part: int, parts: int) -> Batch:
    """Queries and items `part`, `part + parts`, `part + 2 parts`, ... of a batch, and these items' pictures.

    Encoders refuse nothing at all, so where a share would hold no query or no item, the first stands in.
    """
    if parts == 1:
        return batch
    queries, items = (_rows(batch[name], part, parts) for name in ("query_ids", "item_ids"))
    out = {name: batch[name][queries] for name in QUERY_ROWS} | {name: batch[name][items] for name in ITEM_ROWS}
    out |= {"pictures": batch["pictures"][items]} if "pictures" in batch else {}
    return {**out, "pixels": pictures_of(batch, items)}


def _rows(values: Tensor, part: int, parts: int) -> Tensor:
    return torch.arange(len(values), device=values.device)[part::parts] if part < len(values) else values.new_zeros(1)


def restore(rows: Tensor, parts: int) -> Tensor:
    """Rows that stand share by share [n, ...] -> the order of the batch."""
    order = torch.arange(len(rows), device=rows.device)
    return rows[torch.cat([order[part::parts] for part in range(parts)]).argsort()]


def share_sizes(n: int, parts: int) -> list[int]:
    """Rows in each share of n."""
    return [len(range(part, n, parts)) for part in range(parts)]


def encode_batch(
    model: nn.Module, batch: Batch, micro_batch: int | None, prepare: Callable[[Batch], Batch], encode: Encode
) -> tuple[QueryOutput, ItemOutput]:
    """Encode a batch that every process holds; every process returns all its vectors.

    Args:
        model: whose statistics are left alone when a part is encoded again.
        batch: queries and items (see `smar.training.batches.Collator`), the same in every process.
        micro_batch: queries and items encoded at once; None, or as many as there are, encodes the process's share in
            one go and keeps the activations.
        prepare: applied once to this process's share, such as modality dropout.
        encode: applied to each part.
    """
    own = prepare(share(batch, rank(), world()))
    parts = 1 if micro_batch is None else parts_of(own, micro_batch)
    if parts > 1:
        contexts = partial(_contexts, model)
        encode = partial(checkpoint, encode, use_reentrant=False, context_fn=contexts)
    outputs = [encode(share(own, part, parts)) for part in range(parts)]
    queries, items = len(batch["query_ids"]), len(batch["item_ids"])
    return _join([query for query, _ in outputs], queries), _join([item for _, item in outputs], items)


def parts_of(batch: Batch, micro_batch: int) -> int:
    """Parts of a batch, each of at most `micro_batch` queries and items."""
    return -(-max(len(batch["query_ids"]), len(batch["item_ids"])) // micro_batch)


def _join(outputs: Sequence[Output], n: int) -> Output:
    """Outputs of this process's parts -> one of all n rows, those of the other processes included."""
    shares = share_sizes(n, world())
    sizes = share_sizes(shares[rank()], len(outputs))

    def whole(name: str) -> Tensor:
        rows = [getattr(output, name)[:size] for output, size in zip(outputs, sizes, strict=True)]
        own = rows[0] if len(rows) == 1 else restore(torch.cat(rows), len(rows))
        return own if world() == 1 else restore(gather_rows(own, shares), world())

    return type(outputs[0])(**{field.name: whole(field.name) for field in fields(outputs[0])})


def _contexts(model: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For torch's checkpoint: what surrounds the first encoding of a part, and the second."""
    return nullcontext(), statistics_left_alone(model)


@contextmanager
def statistics_left_alone(model: nn.Module) -> Iterator[None]:
    """Batch normalisation counts a picture once, although it is encoded twice.

    A momentum of 0 and not `track_running_stats = False`: the second pass must save the same tensors as the first.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
