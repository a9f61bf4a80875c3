"""Predictions compared with labels: counts that are added up over tables, and their metrics.

N rows (images or events), K classes of a head.
"""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import label_column, pred_column

_UNKNOWN_NAMED = 100  # a column of other text, named by mistake, must not fill the memory

Counts = npt.NDArray[np.int64]


class LabelCounts:
    """Labels of one head beside its predictions, counted over tables of any size.

    Every row counts once: as labelled and predicted, or in `n_unlabelled`, `n_failed` (labelled,
    without a prediction) or `n_unknown_label` (predicted, with a label that is no class).
    """

    def __init__(self, label_space: LabelSpace, head: str) -> None:
        """All counts are zero."""
        self._head = head
        self._names = label_space.classes[head]
        self._classes = pa.array(self._names, pa.string())
        k = len(self._names)
        self.confusion_KK: Counts = np.zeros((k, k), np.int64)
        """By label (row) and prediction (column)."""
        self.n_unlabelled = 0
        self.n_failed = 0
        self.n_unknown_label = 0
        self.unknown_labels: Counter[str] = Counter()
        """The first labels that are no classes, and their rows."""

    @property
    def has_labels(self) -> bool:
        """Whether any row has a label."""
        return bool(self.n_failed or self.n_unknown_label or self.confusion_KK.any())

    def add(self, rows: pa.Table) -> None:
        """Count predictions of images or of events.

        Args:
            rows: with a column of labels and one of predicted classes for the head.
        """
        labels, predicted = rows[label_column(self._head)], rows[pred_column(self._head)]
        label_N, pred_N = self._codes(labels), self._codes(predicted)
        is_labelled_N = labels.is_valid().to_numpy()
        is_failed_N = is_labelled_N & (pred_N < 0)
        is_unknown_N = is_labelled_N & (label_N < 0) & ~is_failed_N
        is_counted_N = is_labelled_N & ~is_failed_N & ~is_unknown_N
        self.n_unlabelled += int((~is_labelled_N).sum())
        self.n_failed += int(is_failed_N.sum())
        self.n_unknown_label += int(is_unknown_N.sum())
        k = len(self._names)
        cells = label_N[is_counted_N] * k + pred_N[is_counted_N]
        self.confusion_KK += np.bincount(cells, minlength=k * k).reshape(k, k)
        unknown = pc.value_counts(labels.filter(pa.array(is_unknown_N))).to_pylist()
        for name, n in ((row["values"], row["counts"]) for row in unknown):
            if name in self.unknown_labels or len(self.unknown_labels) < _UNKNOWN_NAMED:
                self.unknown_labels[name] += n

    def _codes(self, values: pa.ChunkedArray) -> Counts:
        """The class index of each value; -1 if it is null, or no class."""
        index = pc.index_in(values, value_set=self._classes)
        codes: Counts = pc.fill_null(index, -1).to_numpy().astype(np.int64)
        return codes

    def metrics(self) -> dict[str, Any]:
        """The metrics of the head, as JSON values.

        All are about the `n` rows with a prediction and with a class of the model as label. With no
        such row, accuracies and F1 are None. Macro-F1 is the mean F1 of the classes with a label,
        and balanced accuracy their mean recall.
        """
        hits_K = self.confusion_KK.diagonal()
        support_K, predicted_K = self.confusion_KK.sum(axis=1), self.confusion_KK.sum(axis=0)
        precision_K = hits_K / np.maximum(predicted_K, 1)
        recall_K = hits_K / np.maximum(support_K, 1)
        f1_K = 2 * hits_K / np.maximum(support_K + predicted_K, 1)
        n, is_labelled_K = int(support_K.sum()), support_K > 0
        found = n > 0
        return {
            "n": n,
            "accuracy": int(hits_K.sum()) / n if found else None,
            "balanced_accuracy": float(recall_K[is_labelled_K].mean()) if found else None,
            "macro_f1": float(f1_K[is_labelled_K].mean()) if found else None,
            "n_unlabelled": self.n_unlabelled,
            "n_unknown_label": self.n_unknown_label,
            "n_failed": self.n_failed,
            "unknown_labels": dict(self.unknown_labels),
            "classes": [
                {
                    "class": name,
                    "precision": float(precision_K[code]),
                    "recall": float(recall_K[code]),
                    "f1": float(f1_K[code]),
                    "support": int(support_K[code]),
                    "predicted": int(predicted_K[code]),
                }
                for code, name in enumerate(self._names)
            ],
        }
