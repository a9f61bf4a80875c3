"""Which split an image belongs to; decided by hashes, so no image moves when others come."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import ConfigError
from ctc_ray.schemas import META_PREFIX, meta_column, meta_columns

_NOT_IN_NAMES = re.compile(r"[/\\=%?#\x00-\x1f\x7f]")  # a split is a folder `split=<name>` of a URI
_MAX_NAME_BYTES = 200


def assign_splits(
    rows: pa.Table, *, by: str, fractions: Mapping[str, float], salt: str
) -> pa.Array:
    """The name of each image's split.

    Args:
        by: `event`, `location`, or `meta:FIELD`.
        fractions: split -> share; not used by `meta:FIELD`.
        salt: of `location` only; see there.

    Raises:
        ConfigError: `by` is none of these, or does not fit the rows.
    """
    if by == "event":
        return split_by_event(rows["capture_event_id"], fractions)
    if by == "location":
        return split_by_location(rows, fractions=fractions, salt=salt)
    kind, _, field = by.partition(":")
    if kind != "meta" or not field:
        raise ConfigError(f"split.by is {by!r}; expected event, location or meta:FIELD")
    return split_by_meta(rows, field)


def original_fraction(event_id: str) -> float:
    """The number in [0, 1] that the original gives an event, bit for bit."""
    digest = hashlib.md5(event_id.encode(), usedforsecurity=False).hexdigest()
    return int(digest[:6], 16) / 0xFFFFFF


def unit_interval(name: str, salt: str) -> float:
    """A number in [0, 1), evenly spread: 53 bits of a hash."""
    digest = hashlib.blake2b(f"{salt}\0{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_by_event(
    event_ids: pa.Array | pa.ChunkedArray, fractions: Mapping[str, float]
) -> pa.Array:
    """The split of each event by the original's rule: the first whose cumulative share reaches it.

    Raises:
        ConfigError: fractions do not sum to 1, or a name is no name of a folder.
    """
    return _split(event_ids, fractions, original_fraction, side="left")


def split_by_location(rows: pa.Table, *, fractions: Mapping[str, float], salt: str) -> pa.Array:
    """The split of each image's location, so no location is in two splits.

    Locations are hashed, not drawn: adding images never moves a location to another split.
    Rows without `location_id` are hashed by `capture_event_id`.

    Args:
        fractions: split -> share of locations in [0, 1]; sums to 1 within 1e-9.
        salt: changes the assignment as a whole, e.g. for cross-validation.

    Raises:
        ConfigError: fractions do not sum to 1, or a name is no name of a folder.
    """
    places = pc.coalesce(rows["location_id"], rows["capture_event_id"])
    return _split(places, fractions, lambda name: unit_interval(name, salt), side="right")


def split_by_meta(rows: pa.Table, field: str) -> pa.Array:
    """The metadata field's value as the name of each image's split.

    Raises:
        ConfigError: there is no such field, it has no value on some image, or a value is no name
            of a folder.
    """
    if meta_column(field) not in rows.column_names:
        known = [name.removeprefix(META_PREFIX) for name in meta_columns(rows.schema)]
        raise ConfigError(
            f"split.by: metadata field {field!r} not found; fields are {', '.join(known) or 'none'}"
        )
    values = _combined(rows[meta_column(field)])
    if values.null_count:
        raise ConfigError(
            f"split.by: metadata field {field!r} has no value on {values.null_count} of "
            f"{len(values)} images"
        )
    _require_folder_names(pc.unique(values).to_pylist())
    return values


def _split(
    names: pa.Array | pa.ChunkedArray,
    fractions: Mapping[str, float],
    place: Callable[[str], float],
    *,
    side: Literal["left", "right"],
) -> pa.Array:
    """The split in whose part of [0, 1] each name has its place; a name is hashed once."""
    splits, ends = _boundaries(fractions)
    encoded = _combined(names).dictionary_encode()
    places = np.array([place(name) for name in encoded.dictionary.to_pylist()], np.float64)
    # the last boundary may be a little below 1, and a place 1: that is still the last split
    numbers = np.minimum(np.searchsorted(ends, places, side=side), len(splits) - 1)
    return pa.array(splits, pa.string()).take(pa.array(numbers).take(encoded.indices))


def _boundaries(fractions: Mapping[str, float]) -> tuple[Sequence[str], Sequence[float]]:
    """The splits that get anything, and where each one's part of [0, 1] ends."""
    if any(not 0 <= share <= 1 for share in fractions.values()):
        raise ConfigError(f"split.fractions must lie between 0 and 1: {dict(fractions)}")
    total = math.fsum(fractions.values())
    if abs(total - 1) > 1e-9:
        raise ConfigError(f"split.fractions add up to {total:g}, not to 1")
    used = {name: share for name, share in fractions.items() if share > 0}
    _require_folder_names(used)
    return list(used), list(np.cumsum(list(used.values())))


def _require_folder_names(names: Iterable[str]) -> None:
    for name in names:
        if not name or _NOT_IN_NAMES.search(name) or len(name.encode()) > _MAX_NAME_BYTES:
            raise ConfigError(
                f"{name!r} cannot be the name of a split: it becomes a folder, so it must not be "
                "empty, too long, or contain any of / \\ = % ? #"
            )


def _combined(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
