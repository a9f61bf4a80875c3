import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.hashing import hash_text
from ctc_ray.inventory.events.images import order_by_event

N_EVENTS = 4


@given(st.lists(st.tuples(st.integers(0, N_EVENTS - 1), st.sampled_from("abc")), max_size=20))
def test_images_are_sorted_by_event_in_the_order_of_the_source_each_once(images):
    uris = pa.array([uri for _, uri in images], pa.string())
    events_N = np.array([event for event, _ in images], np.int32)
    layout = order_by_event(events_N, uris, hash_text(uris), N_EVENTS)

    first = [row for row, image in enumerate(images) if image not in images[:row]]
    expected = sorted(first, key=lambda row: images[row][0])
    assert layout.source_indices.tolist() == expected
    assert layout.event_indices.tolist() == [images[row][0] for row in expected]
    all_rows = [*layout.source_indices.tolist(), *layout.duplicates.tolist()]
    assert sorted(all_rows) == list(range(len(images)))
    sizes = [sum(images[row][0] == event for row in first) for event in range(N_EVENTS)]
    assert layout.n_images.tolist() == sizes
    assert layout.image_indices.tolist() == [k for size in sizes for k in range(size)]
