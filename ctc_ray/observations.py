"""Columns of observations: their heads and their labels."""

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import LabelError


def head_names(list_type: pa.ListType) -> list[str]:
    """The heads of a column of observations; empty if it has none."""
    kind = list_type.value_type
    return [field.name for field in kind] if pa.types.is_struct(kind) else []


def labels_of(observations: pa.Array | pa.ChunkedArray, head: str) -> pa.Array | pa.ChunkedArray:
    """The label that each observation gives to a head; null: it gives none.

    Args:
        observations: structs, not lists of structs.

    Raises:
        LabelError: there is no such head.
    """
    known = head_names(pa.list_(observations.type))
    if head not in known:
        raise LabelError(f"head {head!r} not found; heads are {', '.join(known) or 'none'}")
    return pc.struct_field(observations, [known.index(head)])
