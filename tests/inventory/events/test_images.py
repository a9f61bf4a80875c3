import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.hashing import hash_text
from ctc_ray.inventory.events.images import lay_out

N_EVENTS = 4


@given(st.lists(st.tuples(st.integers(0, N_EVENTS - 1), st.sampled_from("abc")), max_size=20))
def test_images_lie_by_event_in_the_order_of_the_source_each_once(images):
    uris = pa.array([uri for _, uri in images], pa.string())
    events_N = np.array([event for event, _ in images], np.int32)
    layout = lay_out(events_N, uris, hash_text(uris), N_EVENTS)

    first = [place for place, image in enumerate(images) if image not in images[:place]]
    expected = sorted(first, key=lambda place: images[place][0])
    assert layout.places.tolist() == expected
    assert layout.events_of.tolist() == [images[place][0] for place in expected]
    assert sorted([*layout.places.tolist(), *layout.doubles.tolist()]) == list(range(len(images)))
    sizes = [sum(images[p][0] == event for p in first) for event in range(N_EVENTS)]
    assert layout.n_images.tolist() == sizes
    assert layout.indices.tolist() == [k for size in sizes for k in range(size)]
