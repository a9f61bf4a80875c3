"""Counts over batches and workers, and the metrics that they give in the end.

B batch, K classes of a head.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import IGNORE_INDEX
from ctc_ray.training.losses import head_loss

_TOP = 5

SumOverWorkers = Callable[[Tensor], Tensor]


class MetricCounts:
    """Confusions, hits and losses of every head, since the first batch.

    Counts are exact integers; sums of losses are float64.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        weights: Mapping[str, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """All counts start at zero.

        Args:
            weights: head -> weight of its loss in `loss`; 1 if absent.
        """
        self._n_classes = {head: label_space.n_classes(head) for head in label_space.heads}
        self._weights = dict(weights or {})
        self.confusions = {  # head -> images (K, K) by label (row) and prediction (column)
            head: torch.zeros(k, k, dtype=torch.int64, device=device)
            for head, k in self._n_classes.items()
        }
        self.top_hits = {
            head: torch.zeros((), dtype=torch.int64, device=device) for head in self._n_classes
        }
        self.non_finite = {  # labelled images with a logit that is no finite number
            head: torch.zeros((), dtype=torch.int64, device=device) for head in self._n_classes
        }
        self.losses = {
            head: torch.zeros((), dtype=torch.float64, device=device) for head in self._n_classes
        }

    def update(self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            logits: head -> (B, K).
            labels: head -> class indices (B,), IGNORE_INDEX where missing.
        """
        with torch.no_grad():
            for head, part_BK in logits.items():
                logits_BK = part_BK.float()
                self._update_head(head, logits_BK, labels[head])
                self.losses[head] += head_loss(logits_BK, labels[head]).double()

    def _update_head(self, head: str, logits_BK: Tensor, labels_B: Tensor) -> None:
        # rows without label count 0: to leave them out would wait for the GPU
        is_labelled_B = labels_B != IGNORE_INDEX
        known_B = torch.where(is_labelled_B, labels_B, 0)
        cells_B = known_B * self._n_classes[head] + logits_BK.argmax(dim=1)
        self.confusions[head].view(-1).index_add_(0, cells_B, is_labelled_B.long())
        is_finite_B = torch.isfinite(logits_BK).all(dim=1)
        self.non_finite[head] += (is_labelled_B & ~is_finite_B).sum()
        n_better_B = (logits_BK > logits_BK.gather(1, known_B[:, None])).sum(dim=1)
        self.top_hits[head] += ((n_better_B < _TOP) & is_labelled_B).sum()

    def merge(self, other: "MetricCounts") -> None:
        """Add the counts of other images with the same label space."""
        for mine, theirs in zip(self._tensors(), other._tensors(), strict=True):
            mine += theirs.to(mine.device)

    def all_reduce(self, sum_tensor: SumOverWorkers) -> None:
        """Replace the counts by their sums over all workers; every worker must call this.

        Args:
            sum_tensor: returns the sum over all workers of a float64 vector, and is called once.
                Counts stay exact, because a float64 is exact up to 2**53.
        """
        self.unpack(sum_tensor(self.packed()))

    def packed(self) -> Tensor:
        """All counts as one float64 vector."""
        return torch.cat([tensor.double().reshape(-1) for tensor in self._tensors()])

    def unpack(self, packed: Tensor) -> None:
        """Replace the counts by those that `packed` has returned, or a sum of such vectors."""
        start = 0
        for tensor in self._tensors():
            values = packed[start : start + tensor.numel()].reshape(tensor.shape)
            tensor.copy_(values.round() if tensor.dtype == torch.int64 else values)
            start += tensor.numel()

    def compute(self) -> dict[str, float]:
        """Metrics by name.

        They are `loss`, and per head `loss_`, `accuracy_`, `balanced_accuracy_`, `macro_f1_`,
        `top5_`, `n_`. `loss` is the weighted sum of the heads' mean losses: plain cross entropies,
        whatever is minimised. `n_` is the number of labelled images, `macro_f1_` the mean F1 and
        `balanced_accuracy_` the mean recall of the classes that have one. A head without labelled
        images has no metrics and adds nothing to `loss`. The result is empty if this is true of all
        heads. If a logit of a labelled image is not finite, the metrics of its head are NaN, and so
        is `loss`: the largest of numbers that are none is no answer.
        """
        metrics: dict[str, float] = {}
        for head, confusion_KK in self.confusions.items():
            n = int(confusion_KK.sum())
            if n == 0:
                continue
            of_head = self._head_metrics(head, n)
            if int(self.non_finite[head]):
                of_head = dict.fromkeys(of_head, math.nan) | {f"n_{head}": float(n)}
            weighted = self._weights.get(head, 1.0) * of_head[f"loss_{head}"]
            metrics["loss"] = metrics.get("loss", 0.0) + weighted
            metrics |= of_head
        return metrics

    def per_class(self, head: str) -> dict[str, list[float]]:
        """Precision, recall, F1 and the number of labelled images, of each class of a head.

        A class that is never predicted has a precision of 0, one without labelled images a recall
        of 0.
        """
        confusion_KK = self.confusions[head].double()
        hits_K = confusion_KK.diagonal()
        labelled_K, predicted_K = confusion_KK.sum(dim=1), confusion_KK.sum(dim=0)
        return {
            "precision": (hits_K / predicted_K.clamp(min=1)).tolist(),
            "recall": (hits_K / labelled_K.clamp(min=1)).tolist(),
            "f1": (2 * hits_K / (labelled_K + predicted_K).clamp(min=1)).tolist(),
            "images": labelled_K.tolist(),
        }

    def _head_metrics(self, head: str, n: int) -> dict[str, float]:
        confusion_KK = self.confusions[head]
        return {
            f"loss_{head}": float(self.losses[head]) / n,
            f"accuracy_{head}": int(confusion_KK.trace()) / n,
            f"balanced_accuracy_{head}": balanced_accuracy(confusion_KK.double()),
            f"macro_f1_{head}": macro_f1(confusion_KK.double()),
            f"top5_{head}": int(self.top_hits[head]) / n,
            f"n_{head}": float(n),
        }

    def _tensors(self) -> list[Tensor]:
        groups = (self.confusions, self.top_hits, self.non_finite, self.losses)
        return [tensor for group in groups for tensor in group.values()]


def balanced_accuracy(confusion_KK: Tensor) -> float:
    """Mean recall of the classes with a label, from float64 counts by label and prediction."""
    labelled_K = confusion_KK.sum(dim=1)
    recall_K = confusion_KK.diagonal() / labelled_K.clamp(min=1)
    return float(recall_K[labelled_K > 0].mean())


def macro_f1(confusion_KK: Tensor) -> float:
    """Mean F1 of the classes with a label, from float64 counts by label and prediction."""
    hits_K = confusion_KK.diagonal()  # F1 is 2 TP / (2 TP + FP + FN)
    labelled_K, predicted_K = confusion_KK.sum(dim=1), confusion_KK.sum(dim=0)
    f1_K = 2 * hits_K / (labelled_K + predicted_K).clamp(min=1)
    return float(f1_K[labelled_K > 0].mean())
