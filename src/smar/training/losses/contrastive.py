"""Contrastive losses over in-batch items: pure functions of embeddings and masks (docs/paper.md, stages 1 and 2).

A batch holds `B` pairs, each of its distinct queries and items once: `u` queries, `n` items. A pair's candidates are
all `n` items except those its query is known to like (`blocked`), which would be false negatives.
"""

import torch
from torch import Tensor
from torch.nn import functional


def pair_losses(scores: Tensor, target: Tensor, blocked: Tensor, temperature: float | Tensor) -> Tensor:
    """Softmax cross-entropy of each pair's own item against the batch (in-batch negatives).

    Args:
        scores: cosines [B, n].
        target: column of each pair's own item [B].
        blocked: bool [B, n], True where the item is a known positive of the query; never at `target`.
        temperature: divides the cosines.

    Returns:
        Losses [B].
    """
    logits = scores / temperature
    return functional.cross_entropy(logits.masked_fill(blocked, float("-inf")), target, reduction="none")


def prefix(vectors: Tensor, dim: int) -> Tensor:
    """First `dim` numbers of vectors [n, k], brought back to unit length (Matryoshka representation)."""
    return functional.normalize(vectors[:, :dim], dim=-1)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` [B] under non-negative `weight` [B]; zero when no weight is left (a batch without pictures)."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)


def group_mean(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Mean of `values` [B] in each of `groups` groups; zero for a group without members."""
    total = values.new_zeros(groups).index_add(0, group, values)
    return total / torch.bincount(group, minlength=groups).clamp_min(1)


def adaptive_scores(text: Tensor, multimodal: Tensor, probability: Tensor) -> Tensor:
    """Soft score p f_m + (1 - p) f_t: scores [u, n] twice, image probability [u] -> [u, n]."""
    p = probability[:, None]
    return p * multimodal + (1 - p) * text


def counterfactual_labels(text_loss: Tensor, image_loss: Tensor, query_of_pair: Tensor, queries: int) -> Tensor:
    """Did the pictures help? Per query, the mean over its pairs of [loss_t > loss_m], without gradient.

    Args:
        text_loss, image_loss: per-pair losses [B] by the item-text and by the multimodal vectors.
        query_of_pair: row of each pair's query [B].
        queries: u.

    Returns:
        Labels in [0, 1], [u].
    """
    return group_mean((text_loss.detach() > image_loss.detach()).float(), query_of_pair, queries)
