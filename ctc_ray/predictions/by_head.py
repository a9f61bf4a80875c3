"""Predictions of a list of images, in memory: by head, and as one table.

N images in the order in which they were given, M of them with a prediction, K classes of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.scores import fail_non_finite, head_columns, probs_matrix
from ctc_ray.schemas import image_fields, pred_column, prediction_schema, score_column

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class HeadPredictions:
    """What one head predicts."""

    classes: tuple[str, ...]
    """The K classes, in the order of `probs`."""
    pred: list[str | None]
    """Class with the highest probability per image; None if the image failed."""
    score: npt.NDArray[np.float32]
    """Probability of that class, (N,); NaN if the image failed."""
    probs: npt.NDArray[np.float32]
    """Probability of every class, (N, K); NaN if the image failed."""


class Predictions(Mapping[str, HeadPredictions]):
    """Predictions of every head, by its name: `predictions["species"].pred`."""

    table: pa.Table
    """One row per image, with the columns that `ctc predict` writes: `image_uri` (null if the image
    was not given as a path), `failure`, and per head `pred_`, `score_` and `probs_`."""

    def __init__(self, table: pa.Table, label_space: LabelSpace) -> None:
        self.table = table
        self._label_space = label_space

    @property
    def failures(self) -> list[str | None]:
        """Why an image has no prediction (missing, unreadable, …); None if it has one."""
        failures: list[str | None] = self.table["failure"].to_pylist()
        return failures

    def __getitem__(self, head: str) -> HeadPredictions:
        if head not in self._label_space.classes:
            raise KeyError(head)
        is_ok_N = self.table["failure"].is_null().to_numpy()
        probs_MK = probs_matrix(self.table, self._label_space, head)
        probs_NK = np.full((len(is_ok_N), probs_MK.shape[1]), np.nan, np.float32)
        probs_NK[is_ok_N] = probs_MK
        return HeadPredictions(
            classes=self._label_space.classes[head],
            pred=self.table[pred_column(head)].to_pylist(),
            score=self.table[score_column(head)].to_numpy(),  # null becomes NaN
            probs=probs_NK,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._label_space.heads)

    def __len__(self) -> int:
        return len(self._label_space.heads)

    def to_pandas(self) -> pd.DataFrame:
        """All heads as one frame with the columns of `table`, one row per image."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame


def batch_table(
    uris: Sequence[str | None],
    failures: Sequence[str | None],
    label_space: LabelSpace,
    probs: Mapping[str, npt.NDArray[np.float32]],
) -> pa.Table:
    """The rows of one batch, as `Predictions` holds them.

    Args:
        uris: of all images of the batch.
        failures: likewise; None for the M images that `probs` has rows for.
        probs: head -> (M, K).
    """
    failure, probs = fail_non_finite(pa.array(failures, pa.string()), probs)
    columns = {"image_uri": pa.array(uris, pa.string()), "failure": failure}
    is_ok_N = failure.is_null().to_numpy(zero_copy_only=False)
    for head in label_space.heads:
        columns |= head_columns(label_space, head, probs[head], is_ok_N)
    return pa.table(columns, _schema(label_space))


def join_batches(batches: Sequence[pa.Table], label_space: LabelSpace) -> Predictions:
    """The predictions of all batches, in their order; without a batch there is no image."""
    empty = _schema(label_space).empty_table()
    return Predictions(pa.concat_tables([empty, *batches]).combine_chunks(), label_space)


def _schema(label_space: LabelSpace) -> pa.Schema:
    ours = list(prediction_schema(label_space.heads))[len(image_fields()) :]
    return pa.schema([pa.field("image_uri", pa.string()), *ours])
