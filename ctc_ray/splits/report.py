"""A report about the splits: leakage, shares, and classes that are not in every split."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts_of_codes
from ctc_ray.columns.factorize import Numbers, factorize
from ctc_ray.schemas import label_column

CONTENT_COLUMN = "content_hash"  # optional; equal values mean files with equal bytes
IMAGE_COLUMN = "_image"  # optional; equal values mean equal image URIs
_KINDS = {
    "location": "location_id",
    "capture event": "capture_event_id",
    "image": IMAGE_COLUMN,
    "content": CONTENT_COLUMN,
}


def leakage(rows: pa.Table, splits: pa.Array) -> list[dict[str, Any]]:
    """Per kind: how many values are in several splits, and how many images have such a value.

    The kinds are location, capture event, image (the same file by its URI, if any occurs twice)
    and, where the rows have a `content_hash`, content.
    Nulls are not counted.
    """
    split_N, names = factorize(splits)
    found = []
    for kind, column in _KINDS.items():
        if column not in rows.column_names:
            continue
        if column == CONTENT_COLUMN and rows[column].null_count == rows.num_rows:
            continue  # content was not hashed
        code_N, values = factorize(rows[column])
        if column == IMAGE_COLUMN and len(values) == rows.num_rows:
            continue  # every image is another file
        n_splits = _occur_together(code_N, split_N, shape=(len(values), len(names))).sum(axis=1)
        is_in_several = np.append(n_splits > 1, False)  # code -1, null, reads the last element
        found.append(
            {
                "same": kind,
                "all": int(np.count_nonzero(n_splits)),
                "in_several_splits": int(is_in_several.sum()),
                "images_of_these": int(is_in_several[code_N].sum()) if is_in_several.any() else 0,
            }
        )
    return found


def files_with_several_labels(rows: pa.Table, heads: Sequence[str]) -> list[dict[str, Any]]:
    """Files that have different labels in different events, by their URI and by their content.

    Args:
        heads: heads with a column `label_<head>` in `rows`.

    Returns:
        Rows of kind, head, number of files, and number of images that are these files; without
        those that have none.
    """
    found = []
    for kind in ("image", "content"):
        if _KINDS[kind] not in rows.column_names:
            continue
        code_N, values = factorize(rows[_KINDS[kind]])
        for head in heads:
            label_N, classes = factorize(rows[label_column(head)])
            known = (code_N >= 0) & (label_N >= 0)
            pairs = np.unique(code_N[known] * np.int64(len(classes)) + label_N[known])
            n_labels = np.bincount(pairs // max(len(classes), 1), minlength=len(values))
            differs = np.append(n_labels > 1, False)  # code -1, null, reads the last element
            n_files = int(differs.sum())
            if n_files:
                counts = {"files": n_files, "images_of_these": int(differs[code_N].sum())}
                found.append({"same": kind, "head": head, **counts})
    return found


def _occur_together(
    code_N: Numbers, other_N: Numbers, *, shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Whether any row has code i in the first column and j in the other: [i, j]; -1 is null."""
    starts = run_starts_of_codes([code_N, other_N]) if len(code_N) else np.empty(0, np.int64)
    code, other = code_N[starts], other_N[starts]
    known = (code >= 0) & (other >= 0)
    result = np.zeros(shape, bool)
    result[code[known], other[known]] = True
    return result


def split_shares(splits: pa.Array, fractions: Mapping[str, float]) -> list[dict[str, Any]]:
    """Per split: the wanted share of images (None: not in `fractions`), and the share it got."""
    code_N, names = factorize(splits)
    n_images = np.bincount(code_N, minlength=len(names)).tolist()
    counts = {name: n for name, n in zip(names.to_pylist(), n_images, strict=True) if n}
    wanted = {name: share for name, share in fractions.items() if share > 0}
    return [
        {
            "split": name,
            "wanted": wanted.get(name),
            "images": counts.get(name, 0),
            "share": round(counts.get(name, 0) / max(len(splits), 1), 4),
        }
        for name in dict.fromkeys([*wanted, *sorted(counts)])
    ]


def classes_not_in_every_split(
    rows: pa.Table, splits: pa.Array, *, heads: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Classes that are in some split but not in every one: a row per class.

    Args:
        heads: heads with a column `label_<head>` in `rows`.
        names: the splits in which every class is expected.

    Returns:
        Rows of head, class, number of its locations, and the splits without it; head by head,
        classes ascending.
    """
    split_N, present = factorize(splits)
    location_N, locations = factorize(rows["location_id"])
    found = []
    for head in heads:
        code_N, classes = factorize(rows[label_column(head)])
        has = _occur_together(code_N, split_N, shape=(len(classes), len(present)))
        at_location = _occur_together(code_N, location_N, shape=(len(classes), len(locations)))
        n_locations = at_location.sum(axis=1)
        for code in pc.sort_indices(classes).to_pylist():
            found_in = {present[int(k)].as_py() for k in np.flatnonzero(has[code])}
            missing_in = [split for split in names if split not in found_in]
            if missing_in and found_in:
                found.append(
                    {
                        "head": head,
                        "class": classes[code].as_py(),
                        "locations": int(n_locations[code]),
                        "not_in": " ".join(missing_in),
                    }
                )
    return found
