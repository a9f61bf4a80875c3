"""The temperature of each head: what its logits are divided by, so that scores are probabilities.

A network that has learnt for long is too sure. One number per head, fitted on images that it has
not learnt from, mends most of it and changes no answer (Guo et al. 2017).

B batch, K classes of a head, T temperatures that are tried.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import IGNORE_INDEX

_SMALLEST, _LARGEST, _N_TRIED = 0.25, 8.0, 201  # each 1.7 % above the one before
_N_BINS = 15  # of the expected calibration error, as in the paper
MIN_IMAGES = 100
"""With fewer labelled images the temperature stays 1."""


@dataclass(frozen=True)
class Calibration:
    """What was found for a head."""

    temperature: float
    ece_before: float
    """Expected calibration error: how far scores are from accuracies, by 15 bins of the score."""
    ece_after: float


class CalibrationCounts:
    """Sums over labelled images, for every temperature that is tried; exact over any batches."""

    def __init__(self, label_space: LabelSpace, *, device: torch.device | str = "cpu") -> None:
        """All sums start at zero."""
        middle = torch.linspace(0, 1, _N_TRIED, dtype=torch.float64)
        tried = _SMALLEST * (_LARGEST / _SMALLEST) ** middle
        tried[(tried - 1).abs().argmin()] = 1.0
        self.tried_T = tried.to(device)  # shape letters
        shape = (_N_TRIED, _N_BINS)
        self._losses = {
            h: torch.zeros(_N_TRIED, dtype=torch.float64, device=device) for h in label_space.heads
        }
        self._bins = {  # head -> of each bin: images, sum of scores, right answers
            h: torch.zeros(3, *shape, dtype=torch.float64, device=device) for h in label_space.heads
        }

    def update(self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            logits: head -> (B, K).
            labels: head -> class indices (B,), IGNORE_INDEX where missing.
        """
        for head, logits_BK in logits.items():
            known_B = labels[head] != IGNORE_INDEX
            labels_B = torch.where(known_B, labels[head], 0)
            counted_B = (known_B & torch.isfinite(logits_BK).all(dim=1)).double()
            logs_TBK = (logits_BK.double() / self.tried_T[:, None, None]).log_softmax(dim=2)
            index_TB1 = labels_B[None, :, None].expand(_N_TRIED, -1, 1)
            losses_TB = -logs_TBK.gather(2, index_TB1).squeeze(2)
            self._losses[head] += torch.where(counted_B > 0, losses_TB, 0).sum(dim=1)
            scores_TB = logs_TBK.amax(dim=2).exp()
            bins_TB = (scores_TB * _N_BINS).long().clamp(0, _N_BINS - 1)
            hits_B = (logits_BK.argmax(dim=1) == labels_B).double() * counted_B
            values = (
                counted_B.expand_as(scores_TB),
                scores_TB * counted_B,
                hits_B.expand_as(scores_TB),
            )
            for row, value_TB in enumerate(values):
                self._bins[head][row].scatter_add_(1, bins_TB, torch.nan_to_num(value_TB))

    def all_reduce(self, sum_tensor: Callable[[Tensor], Tensor]) -> None:
        """Replace the sums by those over all workers; every worker must call this."""
        for tensor in (*self._losses.values(), *self._bins.values()):
            tensor.copy_(sum_tensor(tensor.clone()))

    def compute(self) -> dict[str, Calibration]:
        """Head -> the temperature with the smallest cross entropy."""
        return {head: self._with(head, self._best(head)) for head in self._losses}

    def given(self, temperatures: Mapping[str, float]) -> dict[str, Calibration]:
        """Head -> the errors with its temperature, which other images gave.

        Args:
            temperatures: head -> what `compute` found.
        """
        nearest = {h: int((self.tried_T - t).abs().argmin()) for h, t in temperatures.items()}
        return {head: self._with(head, nearest[head]) for head in self._losses}

    def _best(self, head: str) -> int:
        """Index of the temperature."""
        if float(self._bins[head][0, 0].sum()) < MIN_IMAGES:
            return self._one
        return int(self._losses[head].argmin())

    @property
    def _one(self) -> int:
        return int((self.tried_T == 1).nonzero())

    def _with(self, head: str, tried: int) -> Calibration:
        n_images, sums, hits = self._bins[head]
        errors_T = (sums - hits).abs().sum(dim=1) / n_images.sum(dim=1).clamp(min=1)
        temperature = round(float(self.tried_T[tried]), 4)
        return Calibration(temperature, float(errors_T[self._one]), float(errors_T[tried]))
