"""Boxes around animals, as the column `boxes` of an inventory; N images, B boxes."""

import math
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
    """Each value as a row x, y, w, h; NaN for a value that is not a list of four finite numbers.

    A number may be written as text.
    """
    missing = [np.nan] * 4
    rows = [[number(edge) for edge in v] if _is_four(v) else missing for v in values]
    found = np.array(rows, np.float64).reshape(-1, 4)
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found


def _is_four(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4


def number(value: Any) -> float:
    """The number, also if it is written as text; NaN for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def is_beyond_image(boxes_B4: Floats) -> npt.NDArray[np.bool_]:
    """Whether each box reaches beyond its image or has no area.

    Args:
        boxes_B4: x, y, w, h as shares of the image's width and height.
    """
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
    """The list of boxes of each image, list<schemas.BOX>, in the given order.

    Args:
        images_B: index of each box's image.
        boxes_B4: x, y, w, h as shares of the image's width and height.
        categories: name of each box's category.
        confidences: of each box, in [0, 1]; null, or None for all: drawn by a human.
        has_list_N: False: boxes were not searched for in the image, its list is null.
    """
    order = np.argsort(images_B, kind="stable")
    counts_N = np.bincount(images_B, minlength=len(has_list_N))
    offsets = np.concatenate([[0], np.cumsum(counts_N)]).astype(np.int32)
    chosen = pa.array(order)
    if confidences is None:
        confidences = pa.nulls(len(order), pa.float32())
    columns = [categories.take(chosen).cast(pa.string()), confidences.take(chosen)]
    edges = [pa.array(boxes_B4[order, k].astype(np.float32)) for k in range(4)]
    values = pa.StructArray.from_arrays(
        [columns[0], columns[1].cast(pa.float32()), *edges], fields=list(BOX)
    )
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~has_list_N))
