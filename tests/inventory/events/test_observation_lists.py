import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.inventory.events.observation_lists import (
    observation_lists,
    observations_to_text,
)


def test_without_heads_nothing_is_observed():
    for lists in observation_lists({}, np.zeros(3, np.int32), 2):
        assert lists.to_pylist() == [None, None]


labels = st.sampled_from(["lion", "zebra", None])
some = st.lists(st.tuples(st.integers(0, 3), labels, labels), max_size=20)


@given(some)
def test_each_event_has_its_observations_once_in_the_order_of_the_source(rows):
    lists, counts = observation_lists(
        {
            "one": pa.array([one for _, one, _ in rows], pa.string()),
            "two": pa.array([two for _, _, two in rows], pa.string()).dictionary_encode(),
        },
        np.array([event for event, _, _ in rows], np.int32),
        4,
    )
    for event in range(4):
        own = list(dict.fromkeys((one, two) for e, one, two in rows if e == event))
        labelled = [observation for observation in own if observation != (None, None)]
        got = [(o["one"], o["two"]) for o in lists[event].as_py()]
        assert got == (labelled or own)
        times = [rows.count((event, *observation)) for observation in got]
        assert counts[event].as_py() == times


def test_observations_become_text():
    lists = pa.array(
        [[{"species": "zebra", "count": "2"}, {"species": "blank", "count": None}], []],
        pa.list_(pa.struct([("species", pa.string()), ("count", pa.string())])),
    )
    assert observations_to_text(lists).to_pylist() == [
        "species=zebra, count=2; species=blank, count=missing",
        "",
    ]
    assert observations_to_text(lists[1:]).to_pylist() == [""]
    assert (
        observations_to_text(lists[:1]).to_pylist() == observations_to_text(lists).to_pylist()[:1]
    )
