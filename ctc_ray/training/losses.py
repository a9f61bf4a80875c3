"""Cross entropy of several heads, over labelled rows only.

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
    """Sum of the cross entropy of a head's labelled rows, and their number, as tensors."""

    total: Tensor
    n: Tensor


@dataclass(frozen=True)
class MultiHeadLoss:
    """The loss to minimise, and what it is made of."""

    loss: Tensor
    heads: dict[str, HeadLoss]


def multi_head_loss(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], weights: Mapping[str, float]
) -> MultiHeadLoss:
    """The weighted sum of the heads' mean cross entropies over their labelled rows.

    A row without a label has no effect on its head, neither on loss nor on gradient. A head without
    any label in the batch adds 0, with a gradient of 0 (torch's own mean would be NaN).

    Args:
        logits: head -> (B, K).
        labels: head -> (B,), IGNORE_INDEX where missing.
        weights: head -> weight; 1 where none is given.
    """
    heads = {head: _head_loss(logits_BK, labels[head]) for head, logits_BK in logits.items()}
    terms = [
        weights.get(head, 1.0) * part.total / part.n.clamp(min=1) for head, part in heads.items()
    ]
    return MultiHeadLoss(loss=torch.stack(terms).sum(), heads=heads)


def _head_loss(logits_BK: Tensor, labels_B: Tensor) -> HeadLoss:
    total = F.cross_entropy(logits_BK, labels_B, ignore_index=IGNORE_INDEX, reduction="sum")
    return HeadLoss(total=total, n=(labels_B != IGNORE_INDEX).sum())
