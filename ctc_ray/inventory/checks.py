"""What an inventory holds, counted."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import LabelError


@dataclass(frozen=True)
class LabelCount:
    """How often a label was given."""

    label: str | None
    """None: not labelled."""
    count: int
    """Observations; those of an event are counted once, however many images it has."""
    share: float
    """Of all observations, in [0, 1]."""


def label_statistics(table: pa.Table, heads: Sequence[str]) -> dict[str, list[LabelCount]]:
    """The labels of each head, most frequent first, then by label, the missing one last.

    Raises:
        LabelError: there is no such head.
    """
    events = table.filter(pc.equal(table["image_index"], 0))
    return count_labels(events["observations"], heads)


def count_labels(
    observations_E: pa.Array | pa.ChunkedArray, heads: Sequence[str]
) -> dict[str, list[LabelCount]]:
    """The same from the list of observations of each event."""
    observations = pc.list_flatten(observations_E)
    return {head: _counts(labels_of(observations, head)) for head in heads}


def head_names(list_type: pa.ListType) -> list[str]:
    """The heads of a column of observations."""
    kind = list_type.value_type
    return [field.name for field in kind] if pa.types.is_struct(kind) else []


def labels_of(observations: pa.Array | pa.ChunkedArray, head: str) -> pa.Array | pa.ChunkedArray:
    """The label of each observation.

    Raises:
        LabelError: there is no such head.
    """
    known = head_names(pa.list_(observations.type))
    if head not in known:
        raise LabelError(f"head {head!r} not found; heads are {', '.join(known) or 'none'}")
    return pc.struct_field(observations, [known.index(head)])


def _counts(labels: pa.Array | pa.ChunkedArray) -> list[LabelCount]:
    counted = [(row["values"], row["counts"]) for row in pc.value_counts(labels).to_pylist()]
    counted.sort(key=lambda item: (-item[1], item[0] is None, item[0] or ""))
    return [LabelCount(label, count, count / len(labels)) for label, count in counted]
