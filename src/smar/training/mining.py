"""Hard negatives: what the stage-1 model ranks high for a training query, and nobody clicked (paper.md, "negatives").

The catalogue is encoded once; queries are scored a block at a time against a block of items at a time, and only the
best ranks are carried from block to block. So there is never more than `QUERY_BLOCK` x `ITEM_BLOCK` scores in memory
(32 MiB), whatever the catalogue. Known positives of the query are no candidates. The first ranks are skipped: among
them are the items that fit but were never shown.

STAGE/hard/parts-.../    finished blocks while under way; an interrupted call goes on after them
STAGE/hard/hard.npy      int32 [queries, ranks], item rows by falling score, -1 where there are fewer
STAGE/hard/manifest.json written last
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smar.core.files import Manifest, atomic, sha256, verify
from smar.core.progress import track
from smar.core.sections.losses import NegativeSettings
from smar.model.device import CPU
from smar.model.encoder import Encoder
from smar.model.tokens import Ints
from smar.training.batches import KnownPositives
from smar.training.setup import TrainingData

QUERY_BLOCK, ITEM_BLOCK = 512, 16_384
ENCODED = 4096
"""Items or queries in a part."""
Rows = npt.NDArray[np.int32]


class MiningManifest(Manifest):
    """``STAGE/hard/manifest.json``: what the negatives were mined with."""

    format: str = "smar-hard/1"
    fingerprint: str
    skip: int
    depth: int
    queries: int
    sha256: str = ""


@dataclass(frozen=True)
class Ranks:
    """Ranks `skip` to `depth` are taken, counted from 0 among the items that are no known positive."""

    skip: int
    depth: int


def best_unliked(
    query: Tensor,
    items: Tensor,
    liked: tuple[Ints, Ints],
    ranks: Ranks,
    item_block: int = ITEM_BLOCK,
) -> Rows:
    """Item rows of the ranks asked for, for one block of queries.

    Args:
        query: embeddings [q, k].
        items: vectors [n, k].
        liked: known positives as `KnownPositives.of` gives them: place in the block, item row.
        ranks: which ranks.
        item_block: items scored at once.

    Returns:
        Item rows [q, depth - skip], -1 where the catalogue has fewer.
    """
    place, item = (torch.from_numpy(part).to(query.device) for part in liked)
    score = query.new_empty(len(query), 0)
    row = torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
    for start in range(0, len(items), item_block):
        block = query @ items[start : start + item_block].T
        inside = (item >= start) & (item < start + item_block)
        block[place[inside], item[inside] - start] = -torch.inf
        top = block.topk(min(ranks.depth, block.shape[1]))
        score, row = torch.cat([score, top.values], 1), torch.cat([row, top.indices + start], 1)
        best = score.topk(min(ranks.depth, score.shape[1]))
        score, row = best.values, row.gather(1, best.indices)
    row[score == -torch.inf] = -1
    out = np.full((len(query), ranks.depth), -1, np.int32)
    out[:, : row.shape[1]] = row.cpu().numpy()
    return out[:, ranks.skip :]


@torch.inference_mode()
def mine(
    folder: Path,
    data: TrainingData,
    known: KnownPositives,
    settings: NegativeSettings,
    bf16: bool,
    device: torch.device = CPU,
) -> Rows:
    """Mined negatives of every training query [queries, ranks], read from ``folder/hard`` where they are there already.

    A query is scored as in "always pictures": the gate is not trained in stage 1.

    Args:
        folder: finished stage whose model ranks.
        data: training queries and catalogue.
        known: their known positives.
        settings: the ranks.
        bf16: run the towers in bfloat16.
        device: that encodes and scores.

    Raises:
        InputError: finished negatives are damaged.
    """
    encoder = Encoder.from_pretrained(folder, bf16, device)
    out, ranks = folder / "hard", Ranks(settings.hard_skip, settings.hard_depth)
    job = MiningManifest(fingerprint=encoder.fingerprint, skip=ranks.skip, depth=ranks.depth, queries=len(data.queries))
    done = MiningManifest.read(out, "smar train") if (out / "manifest.json").is_file() else None
    if done is None or done.model_copy(update={"sha256": ""}) != job:
        parts = out / f"parts-{encoder.fingerprint}-{ranks.skip}-{ranks.depth}"
        parts.mkdir(parents=True, exist_ok=True)
        _save(out / "hard.npy", np.concatenate(list(_mined(encoder, data, known, ranks, parts))))
        done = job.model_copy(update={"sha256": sha256(out / "hard.npy")})
        done.write(out)
        for old in out.glob("parts-*"):
            shutil.rmtree(old)
    verify(out / "hard.npy", done.sha256, f"Delete {out} to mine the hard negatives again.")
    mined: Rows = np.load(out / "hard.npy", mmap_mode="r")
    return mined


def _mined(
    encoder: Encoder, data: TrainingData, known: KnownPositives, ranks: Ranks, folder: Path
) -> Iterator[npt.NDArray[Any]]:
    """The parts of ``hard.npy``."""
    images, image_row = data.dataset.images, data.dataset.image_row

    def vectors(part: slice) -> npt.NDArray[np.float32]:
        fields = [field[part] for field in data.fields]
        return np.concatenate([v.multimodal for v in encoder.encode_items(fields, images, image_row[part])])

    encoded = list(_parts(folder, "items", len(image_row), vectors))
    items = torch.from_numpy(np.concatenate(encoded)).to(encoder.model.device)

    def negatives(part: slice) -> Rows:
        query, _ = encoder.encode_queries(data.queries[part])
        rows = np.arange(part.start, part.start + len(query))
        return np.concatenate(
            [
                best_unliked(torch.from_numpy(query[at]).to(items.device), items, known.of(rows[at]), ranks)
                for at in (slice(start, start + QUERY_BLOCK) for start in range(0, len(query), QUERY_BLOCK))
            ]
        )

    yield from _parts(folder, "queries", len(data.queries), negatives)


def _parts(
    folder: Path, name: str, total: int, make: Callable[[slice], npt.NDArray[Any]]
) -> Iterator[npt.NDArray[Any]]:
    """Make the parts of an array, each on disk before the next; those that are there are read."""
    for start in track(range(0, total, ENCODED), f"mine ({name})"):
        path = folder / f"{name}-{start // ENCODED:05d}.npy"
        if not path.is_file():
            _save(path, make(slice(start, start + ENCODED)))
        yield np.load(path)


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    with atomic(path) as partial, partial.open("wb") as handle:
        np.save(handle, array)
