import hashlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.md5 import md5_first_word


def of_hashlib(texts: list[str]) -> list[int]:
    return [int(hashlib.md5(text.encode()).hexdigest()[:8], 16) for text in texts]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_every_length_around_the_blocks_is_hashlibs(kind):
    texts = ["x" * n for n in (*range(75), *range(110, 140), 1000, 0)]  # mixed: blocks end anywhere
    assert md5_first_word(pa.array(texts, kind)).tolist() == of_hashlib(texts)


@given(st.lists(st.text(max_size=150), max_size=20), st.integers(0, 20))
def test_any_text_is_hashlibs(texts, start):
    assert md5_first_word(pa.array(texts, pa.string())[start:]).tolist() == of_hashlib(
        texts[start:]
    )
