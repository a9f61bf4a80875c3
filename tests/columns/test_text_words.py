import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.text_words import hash_parts

texts = st.lists(st.none() | st.text(max_size=40), max_size=30)


def length_and_words(part):
    """Each value's text, put together from its words again, as one number."""
    part, order = part.by_length()
    order = np.arange(len(part.starts))[order]
    assert part.lengths.tolist() == sorted(part.lengths.tolist(), reverse=True)
    result = np.empty(len(order), np.uint64)
    for place, source in enumerate(order.tolist()):
        n_words = int(part.lengths[place]) // 8 + 2  # what lies behind the text is 0
        words = [int(part.words(n, place + 1)[place]) for n in range(n_words)]
        text = b"".join(word.to_bytes(8, "little") for word in words)
        assert text[part.lengths[place] :].strip(b"\0") == b""
        result[source] = hash(text[: part.lengths[place]]) & (1 << 64) - 1
    return result


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@given(values=texts, start=st.integers(0, 30), size=st.integers(1, 9))
def test_words_are_the_bytes_of_each_text_and_then_zeros(kind, values, start, size):
    column = pa.array(values, kind)[start:]
    expected = [hash((value or "").encode()) & (1 << 64) - 1 for value in values[start:]]
    assert (
        hash_parts(column, length_and_words, np.uint64, values_per_part=size).tolist() == expected
    )


@pytest.mark.parametrize("size", [9, 1])  # values of several lengths, and of one
def test_the_last_word_is_the_one_behind_the_whole_words(size):
    def rest(part):
        return part.last_words()

    found = hash_parts(pa.array(["", "ab", "12345678c"]), rest, np.uint64, values_per_part=size)
    assert found.tolist() == [0, int.from_bytes(b"ab", "little"), ord("c")]
