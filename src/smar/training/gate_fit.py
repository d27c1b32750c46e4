"""Fitting the gate with frozen towers, on pairs that they never saw (docs/model.md, "The gate").

The catalogue is encoded once. Each held-out pair (query, clicked item) says how much likelier the multimodal score
brings the item among the first k than the text score does; per query the mean of that is what the gate's last layer
learns, by ridge regression with a cross-validated penalty. Then the validation pairs choose how far the blend follows
the gate, and the threshold of routing. No test click is read.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smar.core.files import write_json
from smar.core.progress import console
from smar.core.settings import Settings
from smar.model.encoder import Encoder
from smar.training.heldout import Evidence, Scored, gather
from smar.training.losses.contrastive import group_mean
from smar.training.losses.gate_scores import WIDTH, advantage, choose_threshold, ridge, strongest_penalty
from smar.training.setup import TrainingData
from smar.training.voices_fit import fit_voices

SHARPNESS = 2.0
"""Stage 2 mixes with p = sigmoid(SHARPNESS * standardised advantage): most queries train one tower, not both."""
_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_SLOPES, _SHIFTS = (1.0, 2.0, 4.0), (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_FOLDS = 5
_PRIOR_PAIRS = 20  # a category with fewer held-out pairs lies nearer to the mean of all


@dataclass(frozen=True)
class GateFit:
    """``stage2/gate.json``: what was fitted, and recall at `k` of the validation pairs in each way to ask."""

    mode: str
    heldout_queries: int
    heldout_pairs: int
    penalty: float | None
    slope: float
    shift: float
    threshold: float
    k: int
    recall_text: float
    recall_multimodal: float
    recall_adaptive: float
    recall_route: float


def fit_direction(evidence: Evidence, settings: Settings) -> tuple[Tensor, Tensor, float]:
    """Ridge regression of the queries' advantage on the gate's features: weight [h], bias, penalty.

    The labels of single clicks are noise for the most part, so the penalty is the largest whose cross-validated error
    lies within one standard error of the least.
    """
    heldout = evidence.heldout
    label = advantage(heldout.constant(0), heldout.constant(1))
    if settings.train.gate.mode == "category" and evidence.category is not None:
        label = _by_category(label, evidence.category[heldout.item], int(evidence.category.max()) + 1)[
            evidence.category[heldout.item]
        ]
    queries, query = heldout.distinct()
    features, target = evidence.features[queries].double(), group_mean(label, query, len(queries)).double()
    fold = torch.from_numpy(np.random.default_rng(settings.train.seed).permutation(len(queries)) % _FOLDS)

    def errors(penalty: float) -> Tensor:
        missed = torch.empty_like(target)
        for number in range(_FOLDS):
            weight, bias = ridge(features[fold != number], target[fold != number], penalty)
            missed[fold == number] = (features[fold == number] @ weight + bias - target[fold == number]).square()
        return missed

    penalty = strongest_penalty({penalty: errors(penalty) for penalty in _PENALTIES})
    weight, bias = ridge(features, target, penalty)
    return weight.float(), bias.float(), penalty


def _by_category(label: Tensor, category: Tensor, categories: int) -> Tensor:
    """Mean label of each category, drawn towards the mean of all where there are few pairs."""
    count = torch.bincount(category, minlength=categories)
    total = group_mean(label, category, categories) * count
    return (total + _PRIOR_PAIRS * label.mean()) / (count + _PRIOR_PAIRS)


def choose_level(valid: Scored, value: Tensor, of_item: bool) -> tuple[float, float]:
    """Slope and shift: p = sigmoid(slope * value + shift) with the best smooth recall of the blend on validation.

    Args:
        valid: validation pairs.
        value: standardised advantage of each query [q], or of each item [n].
        of_item: whether `value` belongs to the items.
    """

    def found(level: tuple[float, float]) -> float:
        share = torch.sigmoid(level[0] * value + level[1])
        margins = (
            valid.margins(share[valid.item], share[valid.rivals]) if of_item else valid.margins(share[valid.query])
        )
        return _recall(valid, torch.sigmoid(margins / WIDTH))

    return max(((slope, shift) for slope in _SLOPES for shift in _SHIFTS), key=found)


def _recall(scored: Scored, found: Tensor) -> float:
    """Mean over queries of the mean of `found` [B] over their pairs."""
    queries, query = scored.distinct()
    return float(group_mean(found.float(), query, len(queries)).mean())


def fit_gate(encoder: Encoder, data: TrainingData, settings: Settings, evidence: Evidence) -> GateFit:
    """Fit the gate of a trained model in place: its last layer, level and threshold, or the item side's P(category)."""
    if settings.model.gate == "category":
        return _fit_categories(encoder, data, settings, evidence)
    weight, bias, penalty = _direction(encoder, evidence, settings)
    value, weight, bias = _standardised(evidence.features, weight, bias)
    slope, shift = choose_level(evidence.valid, value, of_item=False)
    encoder.model.gate.set_head(slope * weight, float(slope * bias + shift))
    share = torch.sigmoid(slope * value + shift)
    queries, query = evidence.valid.distinct()
    gain = group_mean(advantage(evidence.valid.constant(0), evidence.valid.constant(1)), query, len(queries))
    encoder.config.threshold = choose_threshold(share[queries], gain)
    pair_share = share[evidence.valid.query]
    routed = (pair_share > encoder.config.threshold).float()
    margins = [evidence.valid.margins(pair_share), evidence.valid.margins(routed)]
    return _report(settings, evidence, penalty, (slope, shift), encoder.config.threshold, margins)


def _direction(encoder: Encoder, evidence: Evidence, settings: Settings) -> tuple[Tensor, Tensor, float | None]:
    if settings.train.gate.mode != "soft":
        return fit_direction(evidence, settings)
    head = encoder.model.gate.mlp[-1]  # stage 2 has found it end to end
    return head.weight.detach()[0].float().cpu(), head.bias.detach()[0].float().cpu(), None


def _standardised(features: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values [q] of mean 0 and deviation 1, and the weight and bias that give them."""
    value = features @ weight + bias
    scale = value.std().clamp_min(1e-6)
    return (value - value.mean()) / scale, weight / scale, (bias - value.mean()) / scale


def _fit_categories(encoder: Encoder, data: TrainingData, settings: Settings, evidence: Evidence) -> GateFit:
    """P(category) of an item-side gate: f(q, s) = P f_m + (1 - P) f_t with the P of the item's category."""
    assert evidence.category is not None
    heldout, valid, category = evidence.heldout, evidence.valid, evidence.category
    names = sorted(set(data.dataset.fields(["category"])[0]))
    label = advantage(heldout.constant(0), heldout.constant(1))
    by_category = _by_category(label, category[heldout.item], len(names))
    value = by_category[category]
    mean, scale = value.mean(), value.std().clamp_min(1e-6)
    slope, shift = choose_level(valid, (value - mean) / scale, of_item=True)
    shares = torch.sigmoid(slope * (by_category - mean) / scale + shift)
    encoder.config.category_share = dict(zip(names, shares.tolist(), strict=True)) | {
        "": float(shares[category].mean())
    }
    encoder.config.threshold = 0.5  # the query has no say
    blend = valid.margins(shares[category[valid.item]], shares[category[valid.rivals]])
    return _report(settings, evidence, None, (slope, shift), 0.5, [blend, blend])


def _report(
    settings: Settings,
    evidence: Evidence,
    penalty: float | None,
    level: tuple[float, float],
    threshold: float,
    margins: list[Tensor],
) -> GateFit:
    valid = evidence.valid
    recalls = [_recall(valid, m >= 0) for m in (valid.constant(0), valid.constant(1), *margins)]
    queries = len(evidence.heldout.distinct()[0])
    return GateFit(
        settings.train.gate.mode,
        queries,
        len(evidence.heldout.query),
        penalty,
        *level,
        threshold,
        valid.k,
        *recalls,
    )


def finish_gate(encoder: Encoder, data: TrainingData, settings: Settings, folder: Path) -> None:
    """Fit the gate after stage 2, then the shares of all voices, and say what was found.

    ``gate.json`` and ``voices.json`` in `folder` keep it. Nothing is fitted where too few pairs are held out, or
    `train.gate.mode` is `none`.
    """
    options = settings.train.gate
    if options.mode == "none" or (evidence := gather(encoder, data, settings)) is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if encoder.config.kind == "smar":
        fit = fit_gate(encoder, data, settings, evidence)
        write_json(folder / "gate.json", asdict(fit))
        console.print(
            f"gate: {fit.heldout_pairs:,} held-out pairs of {fit.heldout_queries:,} queries; validation R@{fit.k}: "
            f"words {fit.recall_text:.3f}, pictures {fit.recall_multimodal:.3f}, adaptive {fit.recall_adaptive:.3f}, "
            f"routed {fit.recall_route:.3f}",
            soft_wrap=True,
        )
    if options.words and encoder.config.category_share is None:
        assert evidence.encoded is not None
        found = fit_voices(encoder, data, settings, evidence.encoded)
        if kept := found.recall_voices >= found.recall_two_way:
            found.voices.write(folder)
        console.print(
            f"voices: {found.pairs:,} held-out pairs, penalty {found.penalty:g}; R@{settings.evaluate.k}: BM25 "
            f"{found.recall_words:.3f}, text vectors {found.recall_text:.3f}, two-way {found.recall_two_way:.3f}, all "
            f"voices {found.recall_voices:.3f}" + ("" if kept else ", so words have no voice of their own"),
            soft_wrap=True,
        )


def training_shares(encoder: Encoder, data: TrainingData, settings: Settings) -> npt.NDArray[np.float32] | None:
    """p of every training query [q] for stage 2, fitted on the towers of stage 1; None: the gate learns end to end.

    A gate that learns beside the towers stays near one half, so both towers learn all queries. With p fixed near 0 or 1
    from the start, each tower learns its own.
    """
    if settings.train.gate.mode in ("none", "soft") or (evidence := gather(encoder, data, settings)) is None:
        return None
    weight, bias, _ = fit_direction(evidence, settings)
    value, _, _ = _standardised(evidence.features[: len(data.queries)], weight, bias)
    shares: npt.NDArray[np.float32] = torch.sigmoid(SHARPNESS * value).numpy()
    return shares
