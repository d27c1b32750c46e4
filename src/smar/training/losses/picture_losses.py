"""Losses that need no clicks: an item's picture against its own text, and against the words that describe it."""

import torch
from torch import Tensor
from torch.nn import functional


def alignment_loss(image: Tensor, text: Tensor, alike: Tensor, temperature: float | Tensor) -> Tensor:
    """Symmetric softmax cross-entropy: each picture finds its text, each text its picture.

    Args:
        image, text: unit vectors of n items that show a picture [n, k].
        alike: bool [n, n], True for two items with the same text or the same picture: they are no negatives.
        temperature: divides the cosines.

    Returns:
        Mean of both directions, a scalar; zero for no items.
    """
    if not len(image):
        return (image.sum() + text.sum()) * 0
    own = torch.arange(len(image), device=image.device)
    blocked = alike & (own[:, None] != own)
    logits = (image @ text.T / temperature).masked_fill(blocked, float("-inf"))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def word_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Softmax cross-entropy with a bag of words: logits [n, w], target distributions [n, w] -> scalar.

    A softmax over all words learns better from noisy words than one yes or no per word (Joulin et al. 2016).
    """
    return -(target * logits.log_softmax(-1)).sum(-1).mean()
