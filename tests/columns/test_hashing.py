import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns import hashing


def test_the_hash_of_a_string_never_changes():
    # MurmurHash64A, computed with Python's integers from its published source
    texts = ["", "a", "ä.jpg", "S1/B0001/IMG_00000001.JPG"]
    values = pa.array(texts, pa.large_string())
    assert [f"{h:016x}" for h in hashing.hash_text(values)] == [
        "0000000000000000",
        "071717d2d36b6b11",
        "90caf59e705c5131",
        "5af98a013824ba21",
    ]


@given(st.lists(st.text(max_size=40), max_size=20))
def test_the_hash_is_murmurs(texts):
    assert hashing.hash_text(pa.array(texts, pa.string())).tolist() == [
        murmur_64a(text.encode()) for text in texts
    ]


def murmur_64a(key: bytes) -> int:
    """The published algorithm, one byte string at a time."""
    multiplier, limit = 0xC6A4A7935BD1E995, 2**64
    result = len(key) * multiplier % limit
    for start in range(0, len(key) - 7, 8):
        word = int.from_bytes(key[start : start + 8], "little") * multiplier % limit
        word = (word ^ word >> 47) * multiplier % limit
        result = (result ^ word) * multiplier % limit
    rest = key[len(key) // 8 * 8 :]
    if rest:
        result = (result ^ int.from_bytes(rest, "little")) * multiplier % limit
    result = (result ^ result >> 47) * multiplier % limit
    return result ^ result >> 47


def test_parts_do_not_change_a_hash(monkeypatch):
    values = pa.array([f"{i}.jpg" for i in range(10)])
    whole = hashing.hash_text(values)
    monkeypatch.setattr(hashing, "_VALUES_PER_PART", 3)
    assert hashing.hash_text(values).tolist() == whole.tolist()


def test_an_image_id_is_the_hash_of_its_event_and_the_hash_of_its_uri():
    events, uris = np.array([1, 2**64 - 1], np.uint64), np.array([255, 0], np.uint64)
    assert hashing.image_ids(events, uris).to_pylist() == [
        "0000000000000001" + "00000000000000ff",
        "ffffffffffffffff" + "0000000000000000",
    ]


names = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), max_size=20)


@given(names, st.booleans())
def test_a_repeated_image_occurs_in_an_earlier_row_of_its_event(images, collide):
    uris = pa.array([uri for _, uri in images], pa.string())
    hashes = np.zeros(len(images), np.uint64) if collide else hashing.hash_text(uris)
    events = np.array([event for event, _ in images], np.int32)
    expected = [row for row, image in enumerate(images) if image in images[:row]]
    assert hashing.repeated_images(events, uris, hashes).tolist() == expected
