"""An event has one value per column; further values in its rows are a conflict."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.arrays import TEXT
from ctc_ray.inventory.events.event_values import conflicts_to_text, event_attributes


def test_values_that_differ_are_listed_in_the_order_of_the_rows():
    columns = {"site": pa.array(["K", "M", None, "L", "K"], TEXT), "who": None}

    attributes, conflicts = event_attributes(columns, np.array([0, 1, 0, 0, 0], np.int32), 2)

    assert attributes["site"].to_pylist() == ["K", "M"]
    assert attributes["who"].to_pylist() == [None, None]
    assert {name: values.to_pylist() for name, values in conflicts.items()} == {
        "site": ["K, L", None]
    }


def test_columns_are_named_and_locations_are_a_finding_of_their_own():
    conflicts = {
        "location_id": pa.array(["K, L", None, None], TEXT),
        "meta_who": pa.array(["1, 2", "3, 4", None], TEXT),
    }

    found = conflicts_to_text(conflicts)

    assert {kind: texts.to_pylist() for kind, texts in found.items()} == {
        "conflicting_metadata": [
            "location_id: K, L; meta_who: 1, 2",
            "meta_who: 3, 4",
            None,
        ],
        "events_across_locations": ["K, L", None, None],
    }
    assert conflicts_to_text({}) == {}


rows = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "c", None])), max_size=12)


@given(rows)
def test_all_events_at_once_give_the_values_of_each_event_alone(rows):
    numbers = sorted({event for event, _ in rows})  # every event has a row
    events = np.array([numbers.index(event) for event, _ in rows], np.int32)
    n_events = len(numbers)
    columns = {"x": pa.array([v for _, v in rows], TEXT)}
    attributes, conflicts = event_attributes(columns, events, n_events)

    listed = conflicts["x"].to_pylist() if conflicts else [None] * n_events
    for event in range(n_events):
        values = [v for e, (_, v) in zip(events, rows, strict=True) if e == event]
        distinct = list(dict.fromkeys(v for v in values if v is not None))
        assert attributes["x"][event].as_py() == (distinct[0] if distinct else None)
        assert listed[event] == (", ".join(distinct) if len(distinct) > 1 else None)
