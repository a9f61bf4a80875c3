"""Fewer events of the frequent classes; which ones stay is decided by a hash of their id."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.columns.factorize import factorize_to_list, first_rows
from ctc_ray.columns.seeds import hash_to_unit
from ctc_ray.errors import ConfigError
from ctc_ray.schemas import label_column


@dataclass(frozen=True)
class Limit:
    """How many events of a class may stay."""

    head: str
    max_events_per_class: int | Literal["rarest"]
    """`rarest`: as many as the rarest class of the split has."""
    splits: Collection[str] = ("train",)
    salt: str = ""


def balanced(rows: pa.Table, splits: pa.Array, limit: Limit) -> npt.NDArray[np.bool_]:
    """Whether each row stays: of each split and class the events with the smallest hashes.

    An event stays or goes as a whole. One without a label of the head is of no class: it stays and
    does not count. The order of the rows does not matter, and an event stays in whatever else
    is removed.

    Raises:
        ConfigError: there is no such head, or no such split.
    """
    column = label_column(limit.head)
    if column not in rows.column_names:
        raise ConfigError(f"balance.head {limit.head!r} is none of the heads of the dataset")
    event_N, event_ids = factorize_to_list(rows["capture_event_id"])
    class_N, classes = factorize_to_list(rows[column])
    split_N, names = factorize_to_list(splits)
    unknown = [name for name in limit.splits if name not in names]
    if unknown:
        raise ConfigError(
            f"balance.splits: {unknown[0]!r} is no split with images; splits are {', '.join(names)}"
        )
    first_E = first_rows(event_N, len(event_ids))
    class_E, split_E = class_N[first_E], split_N[first_E]
    chosen = np.isin(split_E, [names.index(name) for name in limit.splits])
    subject = np.flatnonzero(chosen & (class_E >= 0))
    group = split_E[subject] * max(len(classes), 1) + class_E[subject]
    hashes = np.array([hash_to_unit(event_ids[event], limit.salt) for event in subject])
    order = np.lexsort((subject, hashes, group))  # events are numbered by id, so ties are settled
    _, start, n_events = np.unique(group[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(start, n_events)
    most = _most(limit, group[order[start]] // max(len(classes), 1), n_events)
    stays_E = np.ones(len(event_ids), bool)
    stays_E[subject[order]] = rank < np.repeat(most, n_events)
    result: npt.NDArray[np.bool_] = stays_E[event_N]
    return result


def _most(
    limit: Limit, split_G: npt.NDArray[np.int64], n_events_G: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The events that may stay in each group of a split and a class."""
    if limit.max_events_per_class != "rarest":
        return np.full(len(split_G), limit.max_events_per_class, np.int64)
    rarest = {split: n_events_G[split_G == split].min() for split in np.unique(split_G)}
    return np.array([rarest[split] for split in split_G], np.int64)
