"""Events of a Camtrap DP package: their ids, and the time interval that contains an image.

N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Intervals:
    """Time intervals [start, end], each of one deployment."""

    deployments: Ints
    """Index of each interval's deployment."""
    starts: Ints
    ends: Ints


def find_intervals(deployments_N: Ints, times_N: Ints, intervals: Intervals) -> Ints:
    """The index of the interval that contains each image's time, ends included; -1: none.

    If several intervals do, the one that starts last is chosen, on a tie the last one given.

    Args:
        deployments_N: index of each image's deployment.
        times_N: in the unit of the intervals.
        intervals: only intervals of the image's deployment are considered.
    """
    n_images, n_intervals = len(times_N), len(intervals.starts)
    if n_images == 0 or n_intervals == 0:
        return np.full(n_images, -1, np.int64)
    times = np.concatenate([times_N, intervals.starts, intervals.ends])
    distinct, ranks = np.unique(times, return_inverse=True)
    deployments = np.concatenate([deployments_N, intervals.deployments, intervals.deployments])
    keys = deployments * len(distinct) + ranks
    image_keys, start_keys, end_keys = np.split(keys, [n_images, n_images + n_intervals])
    order = np.argsort(start_keys, kind="stable")
    end_keys = end_keys[order]
    # keys grow with the deployment, so the largest end so far never reaches the next deployment
    reach = np.maximum.accumulate(end_keys)
    found = np.searchsorted(start_keys[order], image_keys, side="right") - 1
    waiting = np.flatnonzero(found >= 0)
    result = np.full(n_images, -1, np.int64)
    while len(waiting):
        candidates = found[waiting]
        hit = end_keys[candidates] >= image_keys[waiting]
        result[waiting[hit]] = order[candidates[hit]]
        waiting = waiting[~hit & (reach[candidates] >= image_keys[waiting])]
        found[waiting] -= 1
        waiting = waiting[found[waiting] >= 0]
    return result


def prefix_repeated_event_ids(
    tables: Sequence[tuple[pa.Array, pa.Array]],
) -> tuple[list[pa.Array], pa.Array]:
    """Event ids, prefixed with the deployment where several deployments use the same id.

    An event happens at one camera, so equal ids of two deployments are two events: some sources
    number the events of each deployment from 1. A row without a deployment keeps its id.

    Args:
        tables: event ids and deployments of the rows of each table; null is unknown.

    Returns:
        The event ids of each table, and the ids that several deployments use.
    """
    rows = pa.table(
        {
            "event": pa.concat_arrays([events for events, _ in tables]),
            "deployment": pa.concat_arrays([deployments for _, deployments in tables]),
        }
    )
    pairs = rows.drop_null().group_by(["event", "deployment"]).aggregate([])
    counted = pc.value_counts(pairs["event"].combine_chunks())
    is_repeated = np.asarray(pc.struct_field(counted, "counts")) > 1
    repeated = pc.struct_field(counted, "values").filter(pa.array(is_repeated))
    return [_prefix(events, deployments, repeated) for events, deployments in tables], repeated


def _prefix(events: pa.Array, deployments: pa.Array, repeated: pa.Array) -> pa.Array:
    prefixed = pc.binary_join_element_wise(deployments, events, pa.scalar(" ", events.type))
    is_ambiguous = pc.and_(pc.is_in(events, value_set=repeated), deployments.is_valid())
    return pc.if_else(is_ambiguous, prefixed, events)
