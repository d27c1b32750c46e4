"""What the gate is fitted to: pure functions of scores (docs/model.md, "The gate")."""

from collections.abc import Mapping

import torch
from torch import Tensor

WIDTH = 0.05
"""Cosine distance from the k-th place over which "found" fades: a step would leave most pairs without a say."""


def mix(own: Tensor, text: Tensor, multimodal: Tensor, share: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Soft score p f_m + (1 - p) f_t of each pair's own item and of its rivals.

    Args:
        own: text and multimodal score of the own item [B, 2].
        text, multimodal: the rivals' scores [B, c].
        share: p for the own item [B].
        others: p for the rivals, [B, 1] where the query decides, [B, c] where the item does.

    Returns:
        Own scores [B], rivals' scores [B, c].
    """
    return share * own[:, 1] + (1 - share) * own[:, 0], others * multimodal + (1 - others) * text


def margin(own: Tensor, rivals: Tensor, k: int) -> Tensor:
    """Own score less that of the k-th best rival: [B], [B, c] -> [B]; not negative means "among the first k"."""
    return own - rivals.topk(min(k, rivals.shape[1]), dim=1).values[:, -1]


def advantage(text: Tensor, multimodal: Tensor) -> Tensor:
    """How much likelier the pictures bring a pair's item among the first k, -1 to 1, from both margins [B].

    A soft step at the k-th place: on the generated shop, labels of 632 queries told the queries that need the picture
    with AUC 0.90; the comparison of two losses, which looks at the first place, with 0.86.
    """
    return torch.sigmoid(multimodal / WIDTH) - torch.sigmoid(text / WIDTH)


def ridge(features: Tensor, target: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Least squares with an L2 penalty on standardised features: [n, h], [n] -> weight [h], bias."""
    mean, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    x, y = (features - mean) / scale, target - target.mean()
    gram = x.T @ x / len(x) + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, x.T @ y / len(x)) / scale
    return weight, target.mean() - mean @ weight


def strongest_penalty(missed: Mapping[float, Tensor]) -> float:
    """The largest penalty whose cross-validated errors [n] lie, in the mean, within one standard error of the least."""
    best = min(missed.values(), key=lambda errors: float(errors.mean()))
    limit = best.mean() + best.std() / len(best) ** 0.5
    return max(penalty for penalty, errors in missed.items() if errors.mean() <= limit)


def choose_threshold(probability: Tensor, gain: Tensor) -> float:
    """Threshold above which queries go to the pictures, for the largest total gain; the middle one of equal ones.

    Args:
        probability: the gate's word on each query [q].
        gain: recall with pictures less recall with words of each query [q].

    Returns:
        0 (all queries to the pictures), 1 (none), or the middle between two neighbouring probabilities.
    """
    order = probability.argsort(descending=True)
    p = probability[order].double()
    total = torch.cat([gain.new_zeros(1), gain[order].cumsum(0)])  # after the first 0, 1, ..., q queries
    cuts = torch.cat([p.new_ones(1), (p[:-1] + p[1:]) / 2, p.new_zeros(1)])
    possible = torch.cat([p.new_ones(1), (p[:-1] > p[1:]).double(), p.new_ones(1)]) > 0  # equal ones stay together
    best = (possible & (total >= total[possible].max() - 1e-6)).nonzero().squeeze(1)
    return float(cuts[best[len(best) // 2]])
