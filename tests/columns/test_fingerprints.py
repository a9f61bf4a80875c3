import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.fingerprints import table_fingerprint

TEXTS = st.lists(st.none() | st.text(max_size=3), max_size=12)


@given(TEXTS, st.integers(0, 12), st.integers(0, 3))
def test_chunks_and_slices_of_the_same_values_have_the_same_fingerprint(texts, cut, before):
    whole = pa.table({"name": pa.array(texts, pa.string())})
    column = pa.array(["x"] * before + texts, pa.string())[before:]
    chunks = pa.chunked_array([column[:cut], column[cut:]], pa.string())
    assert table_fingerprint(pa.table({"name": chunks})) == table_fingerprint(whole)


@given(TEXTS, TEXTS)
def test_other_values_have_another(one, other):
    tables = [pa.table({"name": pa.array(texts, pa.string())}) for texts in (one, other)]
    assert (table_fingerprint(tables[0]) == table_fingerprint(tables[1])) == (one == other)


def test_a_value_counts_with_its_column_and_its_row():
    fingerprints = {
        table_fingerprint(pa.table(columns))
        for columns in (
            {"a": ["x", None], "b": [None, "y"]},
            {"a": [None, "x"], "b": [None, "y"]},
            {"b": ["x", None], "a": [None, "y"]},
            {"a": ["x", ""], "b": [None, "y"]},
        )
    }
    assert len(fingerprints) == 4


def test_tables_larger_than_what_is_in_memory_at_once_are_read_to_their_end():
    numbers = list(range(150_000))
    one = table_fingerprint(pa.table({"n": numbers}))
    assert one != table_fingerprint(pa.table({"n": [*numbers[:-1], 0]}))
    assert one == table_fingerprint(
        pa.table({"n": pa.chunked_array([numbers[:99_999], numbers[99_999:]])})
    )
