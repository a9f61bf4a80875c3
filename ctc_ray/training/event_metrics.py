"""Metrics per capture event, from batches in which the images of an event are neighbours.

B batch, K classes of a head, R events with images in a batch.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import IGNORE_INDEX
from ctc_ray.training.device_batches import copied
from ctc_ray.training.metrics import SumOverWorkers, balanced_accuracy, macro_f1


class EventCounts:
    """Confusions of every head by capture event, since the first batch.

    The prediction of an event is the class with the largest mean probability over its images, as in
    `ctc predict` by default. Its label is the most frequent one among its labelled images. The
    first class wins a tie. Memory holds the sums of one event that may continue in the next batch.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        temperatures: Mapping[str, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """All counts start at zero.

        Args:
            temperatures: head -> what its logits are divided by; 1 if absent.
        """
        n_classes = {head: label_space.n_classes(head) for head in label_space.heads}
        self._temperatures = dict(temperatures or {})
        self.confusions = {  # head -> events (K, K) by label (row) and prediction (column)
            head: torch.zeros(k, k, dtype=torch.int64, device=device)
            for head, k in n_classes.items()
        }
        self._non_finite = {  # labelled events with a probability that is no finite number
            head: torch.zeros((), dtype=torch.int64, device=device) for head in n_classes
        }
        self._open_event: str | None = None
        self._n_open = 0
        self._open = {  # head -> sums of probabilities, and images by label, of the open event
            head: torch.zeros(2, k, dtype=torch.float64, device=device)
            for head, k in n_classes.items()
        }

    def update(
        self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], event_ids: Sequence[str]
    ) -> None:
        """Add a batch; an event may continue in the next one.

        Args:
            logits: head -> (B, K).
            labels: head -> class indices (B,), IGNORE_INDEX where missing.
            event_ids: the capture event of each image.
        """
        if not event_ids:
            return
        if event_ids[0] != self._open_event:
            self.close()
        changes = [before != after for before, after in itertools.pairwise(event_ids)]
        run_B = torch.tensor([0, *itertools.accumulate(changes)])
        n_images_R = torch.bincount(run_B)
        n_images_R[0] += self._n_open
        n_last = int(n_images_R[-1])
        device = next(iter(self.confusions.values())).device
        run_B, n_images_R = copied(run_B, device), copied(n_images_R, device)
        for head, logits_BK in logits.items():
            temperature = self._temperatures.get(head, 1.0)
            probs_BK = (logits_BK.float() / temperature).softmax(dim=1).double()
            is_labelled_B = labels[head] != IGNORE_INDEX
            known_B1 = torch.where(is_labelled_B, labels[head], 0)[:, None]
            votes_BK = torch.zeros_like(probs_BK)
            votes_BK.scatter_(1, known_B1, is_labelled_B.double()[:, None])
            values_B2K = torch.stack((probs_BK, votes_BK), dim=1)
            sums_R2K = values_B2K.new_zeros(len(n_images_R), *values_B2K.shape[1:])
            sums_R2K.index_add_(0, run_B, values_B2K)
            sums_R2K[0] += self._open[head]
            self._count(head, sums_R2K[:-1], n_images_R[:-1])
            self._open[head] = sums_R2K[-1].clone()
        self._open_event, self._n_open = event_ids[-1], n_last

    def close(self) -> None:
        """Count the event that is open; call it after the last batch."""
        for head, sums_2K in self._open.items():
            n_images_1 = torch.tensor([max(1, self._n_open)])
            self._count(head, sums_2K[None], copied(n_images_1, sums_2K.device))
            self._open[head] = torch.zeros_like(sums_2K)
        self._open_event, self._n_open = None, 0

    def _count(self, head: str, sums_R2K: Tensor, n_images_R: Tensor) -> None:
        probs_RK, votes_RK = sums_R2K.unbind(dim=1)
        mean_RK = (probs_RK / n_images_R[:, None]).float()
        is_labelled_R = votes_RK.sum(dim=1) > 0
        cells_R = votes_RK.argmax(dim=1) * votes_RK.shape[1] + mean_RK.argmax(dim=1)
        self.confusions[head].view(-1).index_add_(0, cells_R, is_labelled_R.long())
        is_finite_R = torch.isfinite(mean_RK).all(dim=1)
        self._non_finite[head] += (is_labelled_R & ~is_finite_R).sum()

    def all_reduce(self, sum_tensor: SumOverWorkers) -> None:
        """Replace the counts by their sums over all workers; every worker must call this.

        Args:
            sum_tensor: returns the sum over all workers of a float64 tensor.
        """
        for tensor in (*self.confusions.values(), *self._non_finite.values()):
            tensor.copy_(sum_tensor(tensor.double()).round())

    def compute(self) -> dict[str, float]:
        """Per head `event_accuracy_`, `event_balanced_accuracy_`, `event_macro_f1_`, `event_n_`.

        `event_n_` is the number of events with a label. A head without one has no metrics. If a
        probability of a labelled event is not finite, the metrics of its head are NaN.
        """
        metrics: dict[str, float] = {}
        for head, confusion_KK in self.confusions.items():
            n = int(confusion_KK.sum())
            if n == 0:
                continue
            of_head = {
                f"event_accuracy_{head}": int(confusion_KK.trace()) / n,
                f"event_balanced_accuracy_{head}": balanced_accuracy(confusion_KK.double()),
                f"event_macro_f1_{head}": macro_f1(confusion_KK.double()),
            }
            if int(self._non_finite[head]):
                of_head = dict.fromkeys(of_head, math.nan)
            metrics |= of_head | {f"event_n_{head}": float(n)}
        return metrics
