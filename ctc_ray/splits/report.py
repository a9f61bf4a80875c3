"""What lies in more than one split, and which class lies in fewer than all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts_of_codes
from ctc_ray.columns.factorize import Numbers, factorize
from ctc_ray.schemas import label_column

CONTENT_COLUMN = "content_hash"  # optional: same value, same bytes of the image
_KINDS = {
    "location": "location_id",
    "capture event": "capture_event_id",
    "content": CONTENT_COLUMN,
}


def leakage(rows: pa.Table, splits: pa.Array) -> list[dict[str, Any]]:
    """Per kind, how many of its values are in several splits, and how many images these have.

    Kinds are location, capture event and, where the rows have a `content_hash`, content; a null is
    no value.
    """
    split_N, names = factorize(splits)
    found = []
    for kind, column in _KINDS.items():
        if column not in rows.column_names:
            continue
        if column == CONTENT_COLUMN and rows[column].null_count == rows.num_rows:
            continue  # nobody has compared the files
        code_N, values = factorize(rows[column])
        n_splits = _met(code_N, split_N, shape=(len(values), len(names))).sum(axis=1)
        is_in_several = np.append(n_splits > 1, False)  # the last is null
        found.append(
            {
                "same": kind,
                "all": int(np.count_nonzero(n_splits)),
                "in_several_splits": int(is_in_several.sum()),
                "images_of_these": int(is_in_several[code_N].sum()) if is_in_several.any() else 0,
            }
        )
    return found


def _met(one_N: Numbers, other_N: Numbers, *, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Whether some row has both of two codes, of every pair; -1 is no code."""
    starts = run_starts_of_codes([one_N, other_N]) if len(one_N) else np.empty(0, np.int64)
    one, other = one_N[starts], other_N[starts]
    known = (one >= 0) & (other >= 0)
    result = np.zeros(shape, bool)
    result[one[known], other[known]] = True
    return result


def split_shares(splits: pa.Array, fractions: Mapping[str, float]) -> list[dict[str, Any]]:
    """Per split the share of images that was wanted (None: not said) and that it got."""
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
    """The classes that are not in every split of these names: where from, and which lack them."""
    split_N, present = factorize(splits)
    place_N, places = factorize(rows["location_id"])
    found = []
    for head in heads:
        code_N, classes = factorize(rows[label_column(head)])
        has = _met(code_N, split_N, shape=(len(classes), len(present)))
        n_places = _met(code_N, place_N, shape=(len(classes), len(places))).sum(axis=1)
        for code in pc.sort_indices(classes).to_pylist():
            there = {present[int(k)].as_py() for k in np.flatnonzero(has[code])}
            lacking = [split for split in names if split not in there]
            if lacking and there:
                found.append(
                    {
                        "head": head,
                        "class": classes[code].as_py(),
                        "locations": int(n_places[code]),
                        "not_in": " ".join(lacking),
                    }
                )
    return found
