import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.text_words import hash_parts

texts = st.lists(st.none() | st.text(max_size=40), max_size=30)


def hash_of_words(part):
    """A hash of each value's text, which is rebuilt from its words."""
    part, order = part.by_length()
    order = np.arange(len(part.starts))[order]
    assert part.lengths.tolist() == sorted(part.lengths.tolist(), reverse=True)
    result = np.empty(len(order), np.uint64)
    for index, source in enumerate(order.tolist()):
        n_words = int(part.lengths[index]) // 8 + 2  # words after the end of the text are 0
        words = [int(part.words(n, index + 1)[index]) for n in range(n_words)]
        text = b"".join(word.to_bytes(8, "little") for word in words)
        assert text[part.lengths[index] :].strip(b"\0") == b""
        result[source] = hash(text[: part.lengths[index]]) & (1 << 64) - 1
    return result


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@given(values=texts, start=st.integers(0, 30), size=st.integers(1, 9))
def test_words_are_the_bytes_of_each_text_and_then_zeros(kind, values, start, size):
    column = pa.array(values, kind)[start:]
    expected = [hash((value or "").encode()) & (1 << 64) - 1 for value in values[start:]]
    assert hash_parts(column, hash_of_words, np.uint64, values_per_part=size).tolist() == expected


@pytest.mark.parametrize("size", [9, 1])  # values of several lengths, and of one
def test_the_last_word_follows_the_whole_words(size):
    def rest(part):
        return part.last_words()

    found = hash_parts(pa.array(["", "ab", "12345678c"]), rest, np.uint64, values_per_part=size)
    assert found.tolist() == [0, int.from_bytes(b"ab", "little"), ord("c")]
