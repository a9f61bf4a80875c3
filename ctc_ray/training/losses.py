"""Cross entropy of several heads over their labelled rows.

B batch, K classes of a head.
"""

from collections.abc import Callable, Mapping
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
class Workers:
    """The workers that share the rows of a step; each calls `multi_head_loss` once per step."""

    n: int
    sum: Callable[[Tensor], Tensor]
    """The sum of a float64 vector over all workers."""


@dataclass(frozen=True)
class MultiHeadLoss:
    """The loss to minimise, and the losses of the heads in it."""

    loss: Tensor
    heads: dict[str, HeadLoss]


def multi_head_loss(
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    weights: Mapping[str, float],
    *,
    workers: Workers | None = None,
) -> MultiHeadLoss:
    """Weighted sum over the heads of the mean cross entropy of their labelled rows.

    A row without a label changes neither the loss nor the gradient of its head. A head without a
    label in the batch adds a loss of 0 with a gradient of 0 (torch's mean would be NaN).

    Args:
        logits: head -> (B, K).
        labels: head -> class indices (B,), IGNORE_INDEX where missing.
        weights: head -> weight; 1 if absent.
        workers: those among which the rows of a step are divided; None: there is one. The mean is
            over the labelled rows of all of them, and the loss is multiplied by their number: the
            gradients are averaged over the workers, so their mean is the gradient of all rows.
    """
    heads = {head: _head_loss(logits_BK, labels[head]) for head, logits_BK in logits.items()}
    numbers = [part.n for part in heads.values()]
    scale = 1.0
    if workers is not None:
        numbers = list(workers.sum(torch.stack(numbers).double()))
        scale = float(workers.n)
    terms = [
        scale * weights.get(head, 1.0) * part.total / n.clamp(min=1)
        for (head, part), n in zip(heads.items(), numbers, strict=True)
    ]
    return MultiHeadLoss(loss=torch.stack(terms).sum(), heads=heads)


def _head_loss(logits_BK: Tensor, labels_B: Tensor) -> HeadLoss:
    total = F.cross_entropy(logits_BK, labels_B, ignore_index=IGNORE_INDEX, reduction="sum")
    return HeadLoss(total=total, n=(labels_B != IGNORE_INDEX).sum())
