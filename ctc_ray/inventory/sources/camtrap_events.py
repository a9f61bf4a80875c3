"""Events of a Camtrap DP package: their ids, and the interval of time that an image lies in.

N images, I intervals.
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
    """Intervals [start, end], each of one deployment; times and deployments are numbers."""

    deployments: Ints
    starts: Ints
    ends: Ints


def find_intervals(deployments_N: Ints, times_N: Ints, intervals: Intervals) -> Ints:
    """The number of the interval each image lies in, both ends included; -1 is none.

    Of several, the one that starts last; of those, the last in the order given.
    """
    n_images, n_intervals = len(times_N), len(intervals.starts)
    if n_images == 0 or n_intervals == 0:
        return np.full(n_images, -1, np.int64)
    times = np.concatenate([times_N, intervals.starts, intervals.ends])
    distinct, ranks = np.unique(times, return_inverse=True)
    places = np.concatenate([deployments_N, intervals.deployments, intervals.deployments])
    keys = places * len(distinct) + ranks
    image_keys, start_keys, end_keys = np.split(keys, [n_images, n_images + n_intervals])
    order = np.argsort(start_keys, kind="stable")
    end_keys = end_keys[order]
    # keys grow with the deployment, so the furthest end so far never reaches into the next one
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
    named: Sequence[tuple[pa.Array, pa.Array]],
) -> tuple[list[pa.Array], pa.Array]:
    """The event ids, those of several deployments behind the deployment of their row; and these.

    An event happens at one camera: where a source counts events anew at each, equal ids of two
    deployments are two events. A row without a deployment keeps the id that it has.

    Args:
        named: event ids and deployments of each table; null is not known.
    """
    rows = pa.table(
        {
            "event": pa.concat_arrays([events for events, _ in named]),
            "deployment": pa.concat_arrays([deployments for _, deployments in named]),
        }
    )
    pairs = rows.drop_null().group_by(["event", "deployment"]).aggregate([])
    counted = pc.value_counts(pairs["event"].combine_chunks())
    is_repeated = np.asarray(pc.struct_field(counted, "counts")) > 1
    repeated = pc.struct_field(counted, "values").filter(pa.array(is_repeated))
    return [_apart(events, deployments, repeated) for events, deployments in named], repeated


def _apart(events: pa.Array, deployments: pa.Array, repeated: pa.Array) -> pa.Array:
    both = pc.binary_join_element_wise(deployments, events, pa.scalar(" ", events.type))
    is_apart = pc.and_(pc.is_in(events, value_set=repeated), deployments.is_valid())
    return pc.if_else(is_apart, both, events)
