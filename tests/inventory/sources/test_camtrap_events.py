"""An image lies in the interval that a look at all of them finds."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.inventory.sources.camtrap_events import Intervals, find_intervals

SMALL = st.integers(0, 9)


@given(
    st.lists(st.tuples(st.integers(0, 2), SMALL)),
    st.lists(st.tuples(st.integers(0, 2), SMALL, st.integers(-1, 5))),
)
def test_found_interval_is_the_one_that_starts_last(images, spans):
    deployments, times = np.array(images, np.int64).reshape(-1, 2).T
    of, starts, lengths = np.array(spans, np.int64).reshape(-1, 3).T

    found = find_intervals(deployments, times, Intervals(of, starts, starts + lengths))

    for (deployment, time), number in zip(images, found, strict=True):
        fits = [
            (start, n)
            for n, (place, start, length) in enumerate(spans)
            if place == deployment and start <= time <= start + length
        ]
        assert number == (max(fits)[1] if fits else -1)
