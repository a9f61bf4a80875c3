"""Splits by time: training images were taken before validation and test images."""

from collections.abc import Mapping, Sequence
from typing import assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize_to_list, from_codes
from ctc_ray.config.choices import UndatedRule
from ctc_ray.errors import ConfigError
from ctc_ray.splits.fractions import cumulative_shares

_NO_DAY = np.iinfo(np.int64).max


def split_by_time(
    rows: pa.Table, fractions: Mapping[str, float], *, undated: UndatedRule
) -> pa.Array:
    """The split of each image by the day of its event's first image, the earliest days first.

    The days are divided in the order of `fractions`. Each cut is moved to the nearest end of a day,
    so no day is in two splits; with few days a split may get no image.

    Args:
        fractions: split -> share of the events that have a time.
        undated: what to do with an event none of whose images has a time: `error` stops, `train`
            puts it into the split `train`, `drop` gives it no split (null).

    Raises:
        ConfigError: an event has no time (`error`), there is no split `train` for it (`train`), or
            fractions do not sum to 1.
    """
    splits, ends = cumulative_shares(fractions)
    event_N, event_ids = factorize_to_list(rows["capture_event_id"])
    days = pc.floor(rows["captured_at"].cast(pa.timestamp("us")).cast(pa.date32()).cast(pa.int32()))
    day_N = days.cast(pa.int64()).fill_null(_NO_DAY).to_numpy()
    day_E = np.full(len(event_ids), _NO_DAY)
    np.minimum.at(day_E, event_N, day_N)
    dated = day_E != _NO_DAY
    n_undated = int(len(dated) - dated.sum())
    split_E = np.full(len(event_ids), _split_of_undated(undated, splits, n_undated, len(dated)))
    day_D, day_index_E, n_events_D = np.unique(
        day_E[dated], return_inverse=True, return_counts=True
    )
    until_D = np.concatenate([[0], np.cumsum(n_events_D)]) / max(int(dated.sum()), 1)
    cuts = [int(np.argmin(np.abs(until_D - end))) for end in ends[:-1]]
    split_D = np.searchsorted(cuts, np.arange(len(day_D)), side="right")
    split_E[dated] = split_D[day_index_E]
    return from_codes(split_E[event_N], splits)


def _split_of_undated(
    undated: UndatedRule, splits: Sequence[str], n_undated: int, n_events: int
) -> int:
    """Index of the split for events without a time; -1 for no split."""
    if not n_undated:
        return -1
    match undated:
        case "error":
            raise ConfigError(
                f"split.by time: {n_undated} of {n_events} capture events have no time "
                "(--split.undated train|drop)"
            )
        case "train":
            if "train" not in splits:
                raise ConfigError(
                    f"split.undated is train, but split.fractions has {', '.join(splits)} (add "
                    "train to split.fractions, or set split.undated drop)"
                )
            return splits.index("train")
        case "drop":
            return -1
        case _:
            assert_never(undated)
