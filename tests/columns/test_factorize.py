import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.event_runs import event_starts
from ctc_ray.columns.factorize import as_dictionary, ascends, encode, first_rows, joined


def test_numbers_follow_the_sorted_names_and_null_is_none_of_them():
    codes, names = encode(pa.chunked_array([["b", None], ["a", "b"]]))
    assert (codes.tolist(), names) == ([1, -1, 0, 1], ["a", "b"])
    assert first_rows(codes, 2).tolist() == [2, 0]


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=6), max_size=4),
    st.integers(0, 5),
)
def test_a_coded_column_is_numbered_as_its_text_is(chunks, start):
    text = pa.chunked_array(chunks, pa.string())[start:]
    by_chunk = pa.chunked_array(
        [chunk.dictionary_encode() for chunk in text.chunks],
        pa.dictionary(pa.int32(), pa.string()),
    )
    codes, names = encode(text)
    for column in (by_chunk, as_dictionary(text), as_dictionary(by_chunk)):
        assert (encode(column)[0].tolist(), encode(column)[1]) == (codes.tolist(), names)
        assert event_starts(column).tolist() == event_starts(text).tolist()
    assert as_dictionary(text).to_pylist() == text.to_pylist()
    assert as_dictionary(text).dictionary.to_pylist() == names


def test_equal_values_and_nulls_do_not_ascend():
    for values, expected in [
        (["a", "b"], True), (["a", "a"], False), (["b", "a"], False), (["a", None], False),
        (["a"], True), ([], True),
    ]:  # fmt: skip
        assert ascends(pa.array(values, pa.string())) is expected


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=6), max_size=4))
def test_pieces_that_are_joined_are_the_column_that_was_cut(chunks):
    for pieces in (chunks, [sorted(filter(None, chunk)) for chunk in sorted(chunks, key=str)]):
        whole = pa.chunked_array(pieces, pa.string())
        column = joined([as_dictionary(piece) for piece in whole.chunks])
        assert column.to_pylist() == whole.to_pylist()
        assert column.dictionary.to_pylist() == as_dictionary(whole).dictionary.to_pylist()


def test_pieces_that_go_on_with_the_last_value_of_the_one_before_share_it():
    pieces = [as_dictionary(pa.array(list(text), pa.string())) for text in ("aab", "bbc", "", "cd")]
    column = joined(pieces)
    assert column.dictionary.to_pylist() == ["a", "b", "c", "d"]
    assert "".join(column.to_pylist()) == "aabbbccd"


def test_pieces_whose_values_are_not_sorted_are_joined_too():
    pieces = [pa.array(list(text), pa.string()).dictionary_encode() for text in ("za", "bz", "zc")]
    column = joined(pieces)
    assert column.dictionary.to_pylist() == ["a", "b", "c", "z"]
    assert "".join(column.to_pylist()) == "zabzzc"
