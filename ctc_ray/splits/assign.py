"""Which split an image belongs to: by its event, its place, its day, or what the source says."""

import logging
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize, from_codes
from ctc_ray.columns.seeds import hash_to_unit
from ctc_ray.errors import ConfigError
from ctc_ray.schemas import META_PREFIX, meta_column, meta_columns
from ctc_ray.splits.by_location import split_by_location
from ctc_ray.splits.by_time import Undated, split_by_time
from ctc_ray.splits.fractions import cumulative_shares, md5_fraction, require_folder_names

Places = npt.NDArray[np.float64]  # in [0, 1]
logger = logging.getLogger(__name__)


def assign_splits(
    rows: pa.Table,
    *,
    by: str,
    fractions: Mapping[str, float],
    salt: str,
    fixed: Mapping[str, str] | None = None,
    undated: Undated = "error",
) -> pa.Array:
    """The name of each image's split; null only for undated events that are to be dropped.

    Args:
        by: `event`, `location`, `location-hash`, `time`, or `meta:FIELD`.
        fractions: split -> share; not used by `meta:FIELD`.
        salt: changes a split by event or location as a whole.
        fixed: of `location` only: locations whose split is decided already.
        undated: of `time` only; see there.

    Raises:
        ConfigError: `by` is none of these, or does not fit the rows, e.g. no image has a location.
    """
    kind, _, field = by.partition(":")
    if kind == "meta" and field:
        return split_by_meta(rows, field)
    if by == "event":
        return split_by_event(rows["capture_event_id"], fractions, salt)
    if by in ("location", "location-hash"):
        _tell_of_unplaced(rows, by, may_be_all=fixed is not None)
    if by == "location":
        return split_by_location(rows, fractions=fractions, salt=salt, fixed=fixed)
    if by == "location-hash":
        return split_by_location_hash(rows, fractions=fractions, salt=salt)
    if by == "time":
        return split_by_time(rows, fractions, undated=undated)
    raise ConfigError(
        f"split.by is {by!r}; expected event, location, location-hash, time or meta:FIELD"
    )


def _tell_of_unplaced(rows: pa.Table, by: str, *, may_be_all: bool) -> None:
    """Warn of images whose location nobody knows: they are split by event.

    Args:
        may_be_all: these are added to others, of which places are known.

    Raises:
        ConfigError: nobody knows any location.
    """
    n_unplaced = rows["location_id"].null_count
    if n_unplaced and n_unplaced == rows.num_rows and not may_be_all:
        raise ConfigError(
            f"split.by {by}: none of {n_unplaced} images has a location (create the inventory with "
            "locations, e.g. --location-column of csv, or --split.by event)"
        )
    if n_unplaced:
        logger.warning(
            "split.by %s: %d of %d images have no location; they are split by event, and may be of "
            "places that are in other splits",
            by,
            n_unplaced,
            rows.num_rows,
        )


def split_by_event(
    event_ids: pa.Array | pa.ChunkedArray, fractions: Mapping[str, float], salt: str = ""
) -> pa.Array:
    """The split of each event by the original's rule: the first whose cumulative share reaches it.

    Args:
        salt: stands before each id; empty: the split is the original's.

    Raises:
        ConfigError: fractions do not sum to 1, or a name is no name of a folder.
    """

    def places(ids: pa.Array) -> Places:
        ids = ids.cast(pa.large_string())
        if salt:
            prefix, mark = pa.scalar(salt, ids.type), pa.scalar("\0", ids.type)
            ids = pc.binary_join_element_wise(prefix, ids, mark)
        return md5_fraction(ids)

    return _split(event_ids, fractions, places, side="left")


def split_by_location_hash(
    rows: pa.Table, *, fractions: Mapping[str, float], salt: str
) -> pa.Array:
    """The split of each image's location, so no location is in two splits.

    Locations are hashed, not drawn: adding images never moves a location to another split.
    Rows without `location_id` are hashed by `capture_event_id`.

    Args:
        fractions: split -> share of locations in [0, 1]; sums to 1 within 1e-9.
        salt: changes the assignment as a whole, e.g. for cross-validation.

    Raises:
        ConfigError: fractions do not sum to 1, or a name is no name of a folder.
    """
    places = pc.coalesce(
        *(rows[name].cast(pa.string()) for name in ("location_id", "capture_event_id"))
    )

    def intervals(names: pa.Array) -> Places:
        return np.array([hash_to_unit(name, salt) for name in names.to_pylist()], np.float64)

    return _split(places, fractions, intervals, side="right")


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
    require_folder_names(pc.unique(values).to_pylist())
    return values


def _split(
    names: pa.Array | pa.ChunkedArray,
    fractions: Mapping[str, float],
    place: Callable[[pa.Array], Places],
    *,
    side: Literal["left", "right"],
) -> pa.Array:
    """The split in whose part of [0, 1] each name has its place; a name is hashed once."""
    splits, ends = cumulative_shares(fractions)
    codes, distinct = factorize(names)
    # the last boundary may be a little below 1, and a place 1: that is still the last split
    numbers = np.minimum(np.searchsorted(ends, place(distinct), side=side), len(splits) - 1)
    return from_codes(numbers.astype(np.int32)[codes], splits)


def _combined(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
