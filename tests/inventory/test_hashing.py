import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.inventory import hashing


def test_the_hash_of_a_string_never_changes():
    # SipHash-2-4 with pandas' key, as pandas has computed it since 2016
    values = pa.array(["", "a", "ä.jpg"], pa.large_string())
    assert [f"{h:016x}" for h in hashing.hash_text(values)] == [
        "186da64456263a46",
        "c1999a454057bfd0",
        "ed46147a868a07a6",
    ]


def test_parts_do_not_change_a_hash(monkeypatch):
    values = pa.array([f"{i}.jpg" for i in range(10)])
    whole = hashing.hash_text(values)
    monkeypatch.setattr(hashing, "_ROWS_AT_ONCE", 3)
    assert hashing.hash_text(values).tolist() == whole.tolist()


def test_an_image_id_is_the_hash_of_its_event_and_that_of_its_uri():
    events, uris = np.array([1, 2**64 - 1], np.uint64), np.array([255, 0], np.uint64)
    assert hashing.image_ids(events, uris).to_pylist() == [
        "0000000000000001" + "00000000000000ff",
        "ffffffffffffffff" + "0000000000000000",
    ]


names = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), max_size=20)


@given(names, st.booleans())
def test_a_repeated_image_is_one_whose_event_has_named_it_before(images, collide):
    uris = pa.array([uri for _, uri in images], pa.string())
    hashes = np.zeros(len(images), np.uint64) if collide else hashing.hash_text(uris)
    events = np.array([event for event, _ in images], np.int32)
    expected = [place for place, image in enumerate(images) if image in images[:place]]
    assert hashing.repeated(events, uris, hashes).tolist() == expected
