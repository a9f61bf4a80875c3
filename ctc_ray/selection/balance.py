"""A cap on the events per class and split; a hash of the event id decides which are kept."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.columns.factorize import factorize_to_list, first_rows
from ctc_ray.columns.seeds import hash_to_unit
from ctc_ray.config.choices import RarestClass
from ctc_ray.errors import ConfigError
from ctc_ray.schemas import LABEL_PREFIX, label_column


@dataclass(frozen=True)
class ClassCap:
    """How many events of each class of a head may be kept."""

    head: str
    max_events_per_class: int | RarestClass
    """Per split; `rarest`: as many as the rarest class of the split has."""
    splits: Collection[str] = ("train",)
    """The splits that are capped; every event of the other splits is kept."""
    salt: str = ""
    """Another value keeps other events."""


def within_class_cap(rows: pa.Table, splits: pa.Array, cap: ClassCap) -> npt.NDArray[np.bool_]:
    """Whether each row is kept: the events with the smallest hashes in each split and class.

    Events are kept or left out as a whole. Events without a label of this head are always kept and
    never counted. Removing other events never drops an event that was kept; row order does not
    matter.

    Args:
        splits: the split of each row.

    Raises:
        ConfigError: the head has no label column, or a split of the cap has no image.
    """
    column = label_column(cap.head)
    if column not in rows.column_names:
        labels = [name for name in rows.column_names if name.startswith(LABEL_PREFIX)]
        heads = [name.removeprefix(LABEL_PREFIX) for name in labels]
        raise ConfigError(
            f"balance.head: head {cap.head!r} not found; heads are {', '.join(heads) or 'none'}"
        )
    event_N, event_ids = factorize_to_list(rows["capture_event_id"])
    class_N, classes = factorize_to_list(rows[column])
    split_N, names = factorize_to_list(splits)
    unknown = [name for name in cap.splits if name not in names]
    if unknown:
        raise ConfigError(
            f"balance.splits: split {unknown[0]!r} has no image; splits are {', '.join(names)}"
        )
    first_E = first_rows(event_N, len(event_ids))
    class_E, split_E = class_N[first_E], split_N[first_E]
    chosen = np.isin(split_E, [names.index(name) for name in cap.splits])
    subject = np.flatnonzero(chosen & (class_E >= 0))
    group = split_E[subject] * max(len(classes), 1) + class_E[subject]
    hashes = np.array([hash_to_unit(event_ids[event], cap.salt) for event in subject])
    order = np.lexsort((subject, hashes, group))  # equal hashes: event codes follow the ids
    _, start, n_events = np.unique(group[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(start, n_events)
    most = _max_events(cap, group[order[start]] // max(len(classes), 1), n_events)
    is_kept_E = np.ones(len(event_ids), bool)
    is_kept_E[subject[order]] = rank < np.repeat(most, n_events)
    result: npt.NDArray[np.bool_] = is_kept_E[event_N]
    return result


def _max_events(
    cap: ClassCap, split_G: npt.NDArray[np.int64], n_events_G: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """How many events may be kept in each of G groups of a split and a class."""
    match cap.max_events_per_class:
        case int():
            return np.full(len(split_G), cap.max_events_per_class, np.int64)
        case "rarest":
            rarest = {split: n_events_G[split_G == split].min() for split in np.unique(split_G)}
            return np.array([rarest[split] for split in split_G], np.int64)
        case _:
            assert_never(cap.max_events_per_class)
