"""Boxes around what is in an image, as the column of an inventory; N images, B boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.schemas import BOX

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_TOLERANCE = 1e-3  # detectors round their boxes to four digits or less


def parse_boxes(values: Sequence[Any]) -> Floats:
    """Lists of four finite numbers as rows x, y, w, h; a row of NaN for anything else."""
    missing = [np.nan] * 4
    found = np.array([v if _is_box(v) else missing for v in values], np.float64).reshape(-1, 4)
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(v, (int, float)) for v in value)
    )


def is_beyond_image(boxes_B4: Floats) -> npt.NDArray[np.bool_]:
    """Which boxes, relative to the image, reach beyond it or have no area."""
    x, y, w, h = boxes_B4.T
    low, high = -_TOLERANCE, 1 + _TOLERANCE
    inside = (x >= low) & (y >= low) & (x + w <= high) & (y + h <= high) & (w > 0) & (h > 0)
    return np.asarray(~inside)


def box_lists(
    images_B: Ints,
    boxes_B4: Floats,
    categories: pa.Array,
    confidences: pa.Array | None,
    has_list_N: npt.NDArray[np.bool_],
) -> pa.Array:
    """The list of boxes of each image, in the order given.

    Args:
        images_B: number of each box's image.
        confidences: null where a human drew the box.
        has_list_N: images that somebody has looked at; the others' list is null.
    """
    order = np.argsort(images_B, kind="stable")
    counts_N = np.bincount(images_B, minlength=len(has_list_N))
    offsets = np.concatenate([[0], np.cumsum(counts_N)]).astype(np.int32)
    chosen = pa.array(order)
    if confidences is None:
        confidences = pa.nulls(len(order), pa.float32())
    columns = [categories.take(chosen).cast(pa.string()), confidences.take(chosen)]
    edges = [pa.array(boxes_B4[order, place].astype(np.float32)) for place in range(4)]
    values = pa.StructArray.from_arrays(
        [columns[0], columns[1].cast(pa.float32()), *edges], fields=list(BOX)
    )
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~has_list_N))
