"""Cross entropy of several heads over their labelled rows.

B batch, K classes of a head.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # everyone's name for it
from torch import Tensor

from ctc_ray.training.batches import IGNORE_INDEX


@dataclass(frozen=True)
class HeadLoss:
    """Sum of the cross entropies of a head's labelled rows, and the number of these rows."""

    total: Tensor
    n: Tensor


@dataclass(frozen=True)
class MultiHeadLoss:
    """The loss to minimise, and the losses of the heads in it."""

    loss: Tensor
    heads: dict[str, HeadLoss]


def multi_head_loss(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], weights: Mapping[str, float]
) -> MultiHeadLoss:
    """Weighted sum over the heads of the mean cross entropy of their labelled rows.

    A row without a label changes neither the loss nor the gradient of its head. A head without a
    label in the batch adds a loss of 0 with a gradient of 0 (torch's mean would be NaN).

    Args:
        logits: head -> (B, K).
        labels: head -> class indices (B,), IGNORE_INDEX where missing.
        weights: head -> weight; 1 if absent.
    """
    heads = {head: _head_loss(logits_BK, labels[head]) for head, logits_BK in logits.items()}
    terms = [
        weights.get(head, 1.0) * part.total / part.n.clamp(min=1) for head, part in heads.items()
    ]
    return MultiHeadLoss(loss=torch.stack(terms).sum(), heads=heads)


def _head_loss(logits_BK: Tensor, labels_B: Tensor) -> HeadLoss:
    total = F.cross_entropy(logits_BK, labels_B, ignore_index=IGNORE_INDEX, reduction="sum")
    return HeadLoss(total=total, n=(labels_B != IGNORE_INDEX).sum())
