"""The split of each image: by its event, its location, its day, or a metadata field."""

import logging
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize, from_codes
from ctc_ray.columns.seeds import hash_to_unit
from ctc_ray.config.choices import UndatedRule
from ctc_ray.errors import ConfigError
from ctc_ray.schemas import META_PREFIX, meta_column, meta_columns
from ctc_ray.splits.by_location import split_by_location
from ctc_ray.splits.by_time import split_by_time
from ctc_ray.splits.fractions import cumulative_shares, md5_fraction, require_folder_names

Fractions = npt.NDArray[np.float64]  # in [0, 1]
logger = logging.getLogger(__name__)


def assign_splits(
    rows: pa.Table,
    *,
    by: str,
    fractions: Mapping[str, float],
    salt: str,
    fixed: Mapping[str, str] | None = None,
    undated: UndatedRule = "error",
) -> pa.Array:
    """The split of each image; null only for undated events with `undated="drop"`.

    Args:
        by: `event`, `location`, `location-hash`, `time`, or `meta:FIELD`.
        fractions: split -> share in [0, 1]; not used by `meta:FIELD`.
        salt: changes a split by event or location as a whole.
        fixed: location -> its split, decided before; only for `location`.
        undated: see `split_by_time`; only for `time`.

    Raises:
        ConfigError: `by` is unknown or does not fit the rows, e.g. no image has a location.
    """
    kind, _, field = by.partition(":")
    if kind == "meta" and field:
        return split_by_meta(rows, field)
    if by == "event":
        return split_by_event(rows["capture_event_id"], fractions, salt)
    if by in ("location", "location-hash"):
        _warn_without_location(rows, by, may_be_all=fixed is not None)
    if by == "location":
        return split_by_location(rows, fractions=fractions, salt=salt, fixed=fixed)
    if by == "location-hash":
        return split_by_location_hash(rows, fractions=fractions, salt=salt)
    if by == "time":
        return split_by_time(rows, fractions, undated=undated)
    raise ConfigError(
        f"split.by is {by!r}; expected event, location, location-hash, time or meta:FIELD"
    )


def _warn_without_location(rows: pa.Table, by: str, *, may_be_all: bool) -> None:
    """Warn about images without a location: they are split by event.

    Args:
        may_be_all: True for images that are added to a dataset whose images have locations.

    Raises:
        ConfigError: no image has a location, and `may_be_all` is False.
    """
    n_without = rows["location_id"].null_count
    if n_without and n_without == rows.num_rows and not may_be_all:
        raise ConfigError(
            f"split.by {by}: none of {n_without} images has a location (create the inventory with "
            "locations, e.g. --location-column for a csv, or set --split.by event)"
        )
    if n_without:
        logger.warning(
            "split.by %s: %d of %d images have no location; they are split by event, so their "
            "locations may be in several splits",
            by,
            n_without,
            rows.num_rows,
        )


def split_by_event(
    event_ids: pa.Array | pa.ChunkedArray, fractions: Mapping[str, float], salt: str = ""
) -> pa.Array:
    """The split of each event by the original's rule, a hash of its id.

    An event is in the first split whose cumulative share reaches the event's MD5 fraction.

    Args:
        event_ids: one per image; equal ids get one split.
        salt: hashed before each id; empty reproduces the original's split.

    Raises:
        ConfigError: fractions do not sum to 1, or a split's name cannot be a folder.
    """

    def hashed(ids: pa.Array) -> Fractions:
        ids = ids.cast(pa.large_string())
        if salt:
            prefix, separator = pa.scalar(salt, ids.type), pa.scalar("\0", ids.type)
            ids = pc.binary_join_element_wise(prefix, ids, separator)
        return md5_fraction(ids)

    return _split(event_ids, fractions, hashed, side="left")


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
        ConfigError: fractions do not sum to 1, or a split's name cannot be a folder.
    """
    names = pc.coalesce(
        *(rows[name].cast(pa.string()) for name in ("location_id", "capture_event_id"))
    )

    def hashed(distinct: pa.Array) -> Fractions:
        return np.array([hash_to_unit(name, salt) for name in distinct.to_pylist()], np.float64)

    return _split(names, fractions, hashed, side="right")


def split_by_meta(rows: pa.Table, field: str) -> pa.Array:
    """The value of a metadata field as the name of each image's split.

    Raises:
        ConfigError: the field does not exist, an image has no value, or a value cannot be the name
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
            f"{len(values)} images (give every image a split, or choose another split.by)"
        )
    require_folder_names(pc.unique(values).to_pylist())
    return values


def _split(
    names: pa.Array | pa.ChunkedArray,
    fractions: Mapping[str, float],
    hashed: Callable[[pa.Array], Fractions],
    *,
    side: Literal["left", "right"],
) -> pa.Array:
    """The split whose part of [0, 1] contains the hash of each name.

    Args:
        hashed: the hash of each distinct name, in [0, 1].
        side: `left`: a hash equal to an upper bound belongs to that split; `right`: to the next.
    """
    splits, ends = cumulative_shares(fractions)
    codes, distinct = factorize(names)
    # rounding may leave the last bound below 1, and a hash above it: the last split gets the hash
    indices = np.minimum(np.searchsorted(ends, hashed(distinct), side=side), len(splits) - 1)
    return from_codes(indices.astype(np.int32)[codes], splits)


def _combined(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
