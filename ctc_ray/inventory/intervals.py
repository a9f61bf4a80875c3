"""Which interval of time of a deployment an image lies in; N images, I intervals."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Intervals:
    """Intervals [start, end], each of one deployment; times and deployments are numbers."""

    deployments: Ints
    starts: Ints
    ends: Ints


def interval_of(deployments_N: Ints, times_N: Ints, intervals: Intervals) -> Ints:
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
