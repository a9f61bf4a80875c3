"""What lies in more than one split, and which class lies in fewer than all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ctc_ray.inventory.columns import encode, number
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
    split_N, names = encode(splits)
    found = []
    for kind, column in _KINDS.items():
        if column not in rows.column_names:
            continue
        if column == CONTENT_COLUMN and rows[column].null_count == rows.num_rows:
            continue  # nobody has compared the files
        code_N, values = number(rows[column])
        known = code_N >= 0
        is_in = np.zeros((len(values), len(names)), bool)
        is_in[code_N[known], split_N[known]] = True
        n_splits = is_in.sum(axis=1)
        n_images = np.bincount(code_N[known], minlength=len(values))
        several = n_splits > 1
        found.append(
            {
                "same": kind,
                "all": len(values),
                "in_several_splits": int(several.sum()),
                "images_of_these": int(n_images[several].sum()),
            }
        )
    return found


def split_shares(splits: pa.Array, fractions: Mapping[str, float]) -> list[dict[str, Any]]:
    """Per split the share of images that was wanted (None: not said) and that it got."""
    code_N, names = encode(splits)
    counts = dict(zip(names, np.bincount(code_N, minlength=len(names)).tolist(), strict=True))
    wanted = {name: share for name, share in fractions.items() if share > 0}
    return [
        {
            "split": name,
            "wanted": wanted.get(name),
            "images": counts.get(name, 0),
            "share": round(counts.get(name, 0) / max(len(splits), 1), 4),
        }
        for name in dict.fromkeys([*wanted, *names])
    ]


def lacking_classes(
    rows: pa.Table, splits: pa.Array, *, heads: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The classes that are not in every split of these names: where from, and which lack them."""
    split_N, present = encode(splits)
    place_N, places = encode(rows["location_id"])
    found = []
    for head in heads:
        code_N, classes = encode(rows[label_column(head)])
        known = code_N >= 0
        has = np.zeros((len(classes), len(present)), bool)
        has[code_N[known], split_N[known]] = True
        placed = known & (place_N >= 0)
        is_at = np.zeros((len(classes), len(places)), bool)
        is_at[code_N[placed], place_N[placed]] = True
        n_places = is_at.sum(axis=1)
        for code, name in enumerate(classes):
            there = {present[k] for k in np.flatnonzero(has[code])}
            lacking = [split for split in names if split not in there]
            if lacking:
                found.append(
                    {
                        "head": head,
                        "class": name,
                        "locations": int(n_places[code]),
                        "not_in": " ".join(lacking),
                    }
                )
    return found
