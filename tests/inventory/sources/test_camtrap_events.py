"""Events of a package: intervals that contain an image, and ids of several deployments."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.inventory.sources.camtrap_events import (
    Intervals,
    find_intervals,
    prefix_repeated_event_ids,
)

SMALL = st.integers(0, 9)


@given(
    st.lists(st.tuples(st.integers(0, 2), SMALL)),
    st.lists(st.tuples(st.integers(0, 2), SMALL, st.integers(-1, 5))),
)
def test_found_interval_is_the_one_that_starts_last(images, spans):
    deployments, times = np.array(images, np.int64).reshape(-1, 2).T
    of, starts, lengths = np.array(spans, np.int64).reshape(-1, 3).T

    found = find_intervals(deployments, times, Intervals(of, starts, starts + lengths))

    for (deployment, time), index in zip(images, found, strict=True):
        fits = [
            (start, n)
            for n, (own, start, length) in enumerate(spans)
            if own == deployment and start <= time <= start + length
        ]
        assert index == (max(fits)[1] if fits else -1)


def test_an_id_of_several_deployments_is_an_event_of_each():
    text = pa.large_string()
    media = pa.array(["1", "2", None, "1"], text), pa.array(["a", "a", "b", None], text)
    observations = pa.array(["1", "3"], text), pa.array(["b", "b"], text)
    (of_media, of_observations), repeated = prefix_repeated_event_ids([media, observations])
    assert of_media.to_pylist() == ["a 1", "2", None, "1"]
    assert of_observations.to_pylist() == ["b 1", "3"]
    assert repeated.to_pylist() == ["1"]
