"""Cross entropy of several heads over their labelled rows.

B batch, K classes of a head.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import torch
import torch.nn.functional as F  # noqa: N812  # everyone's name for it
from torch import Tensor

from ctc_ray.config.optimization import LossConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.training.batches import IGNORE_INDEX


@dataclass(frozen=True)
class HeadLossSettings:
    """How the loss of one head is computed; the defaults give the plain cross entropy."""

    class_weights_K: Tensor | None = None  # noqa: N815  # shape letters
    """Weight of a row by its class; None: 1."""
    adjustment_K: Tensor | None = None  # noqa: N815  # shape letters
    """Added to the logits during training; None: nothing."""
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0


@dataclass(frozen=True)
class Target:
    """Labels of a batch, and the share that they have of its images."""

    labels: Mapping[str, Tensor]
    """Head -> class indices (B,), IGNORE_INDEX where missing."""
    share: float = 1.0


@dataclass(frozen=True)
class Workers:
    """The workers that share the rows of a step; each calls `label_weights` once per step."""

    n: int
    sum: Callable[[Tensor], Tensor]
    """The sum of a float64 vector over all workers."""


@dataclass(frozen=True)
class LossSettings:
    """How the losses of all heads are computed and added up."""

    head_weights: Mapping[str, float] = field(default_factory=dict)
    """Head -> weight in the sum; 1 if absent."""
    heads: Mapping[str, HeadLossSettings] = field(default_factory=dict)
    """Head -> how its loss is computed; plain cross entropy if absent."""
    workers: Workers | None = None
    """Those among which the rows of a step are divided; None: there is one."""

    def of(self, head: str) -> HeadLossSettings:
        """How the loss of a head is computed."""
        return self.heads.get(head, _PLAIN)


_PLAIN = HeadLossSettings()


def head_settings(
    config: LossConfig, n_images_K: Sequence[int], device: torch.device | str = "cpu"
) -> HeadLossSettings:
    """The settings of a head, from the number of training images of each of its classes.

    A class without a training image has the weight of a class with one, and the smallest share.

    Args:
        n_images_K: in the order of the classes.
    """
    n_K = torch.tensor(list(n_images_K), dtype=torch.float64).clamp(min=1)
    match config.class_weights:
        case "none":
            weights_K = None
        case "inverse":
            weights_K = 1 / n_K
        case "effective-number":
            weights_K = (1 - config.beta) / (1 - config.beta**n_K)
        case _:
            assert_never(config.class_weights)
    if weights_K is not None:  # the mean over images is 1, so that rates mean what they mean
        weights_K = (weights_K * n_K.sum() / (weights_K * n_K).sum()).float().to(device)
    adjustment_K = None
    if config.logit_adjustment:
        adjustment_K = (config.logit_adjustment * (n_K / n_K.sum()).log()).float().to(device)
    return HeadLossSettings(weights_K, adjustment_K, config.label_smoothing, config.focal_gamma)


def loss_settings(
    config: TrainConfig,
    n_images: Mapping[str, Sequence[int]],
    device: torch.device | str,
    workers: Workers | None,
) -> LossSettings:
    """The settings of all heads.

    Args:
        n_images: head -> number of usable training images of each of its classes.
    """
    heads = {head: head_settings(config.loss, n_K, device) for head, n_K in n_images.items()}
    return LossSettings(config.loss_weights, heads, workers)


def head_loss(logits_BK: Tensor, labels_B: Tensor, settings: HeadLossSettings = _PLAIN) -> Tensor:
    """The loss of one head (), summed over the rows that have a label.

    A row without a label changes neither the loss nor the gradient. Without any label the loss is
    0, with a gradient of 0 (torch's mean would be NaN).

    Args:
        labels_B: class indices, IGNORE_INDEX where missing.
    """
    if settings.adjustment_K is not None:
        logits_BK = logits_BK + settings.adjustment_K
    if not settings.focal_gamma:
        return F.cross_entropy(
            logits_BK,
            labels_B,
            weight=settings.class_weights_K,
            ignore_index=IGNORE_INDEX,
            reduction="sum",
            label_smoothing=settings.label_smoothing,
        )
    losses_B = F.cross_entropy(
        logits_BK,
        labels_B,
        ignore_index=IGNORE_INDEX,
        reduction="none",
        label_smoothing=settings.label_smoothing,
    )
    weights_B = _row_weights(labels_B, settings)
    known_B = torch.where(labels_B == IGNORE_INDEX, 0, labels_B)
    log_p_B = logits_BK.log_softmax(dim=1).gather(1, known_B[:, None]).squeeze(1)
    missed_B = -torch.expm1(log_p_B.clamp(max=-1e-7))  # 1 - p; its power has no slope at 0
    return (weights_B * missed_B.pow(settings.focal_gamma) * losses_B).sum()


def _row_weights(labels_B: Tensor, settings: HeadLossSettings) -> Tensor:
    is_labelled_B = labels_B != IGNORE_INDEX
    if settings.class_weights_K is None:
        return is_labelled_B.float()
    return settings.class_weights_K[torch.where(is_labelled_B, labels_B, 0)] * is_labelled_B


def label_weights(targets: Sequence[Target], settings: LossSettings) -> dict[str, Tensor]:
    """Head -> weight of all labelled rows of a step, in all its batches and on all workers.

    Args:
        targets: of all batches of this worker.
    """
    heads = list(targets[0].labels)
    parts = [
        [target.share * _row_weights(target.labels[h], settings.of(h)).sum() for h in heads]
        for target in targets
    ]
    sums = torch.stack([torch.stack(part) for part in parts]).double().sum(dim=0)
    if settings.workers is not None:
        sums = settings.workers.sum(sums)
    return dict(zip(heads, sums, strict=True))


def multi_head_loss(
    logits: Mapping[str, Tensor],
    targets: Sequence[Target],
    settings: LossSettings,
    weights_of_step: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Weighted sum over the heads of the mean loss of their labelled rows.

    Args:
        logits: head -> (B, K).
        targets: of the batch; their shares add up to 1.
        weights_of_step: see `label_weights`; None: this batch is the whole step. The mean is over
            the labelled rows of all batches and workers. The result is multiplied by the number of
            workers: gradients are averaged over them, so their mean is the gradient of all rows.
    """
    if weights_of_step is None:
        weights_of_step = label_weights(targets, settings)
    scale = 1 if settings.workers is None else settings.workers.n
    terms = []
    for head, logits_BK in logits.items():
        totals = [
            target.share * head_loss(logits_BK, target.labels[head], settings.of(head))
            for target in targets
        ]
        total, weight = torch.stack(totals).sum(), weights_of_step[head]
        per_row = torch.where(weight > 0, 1 / weight, 0).to(total.dtype)
        terms.append(scale * settings.head_weights.get(head, 1.0) * total * per_row)
    return torch.stack(terms).sum()
