import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.columns.factorize import (
    as_dictionary,
    ascends,
    concat_dictionaries,
    factorize,
    factorize_to_list,
    first_rows,
)


def test_codes_follow_the_sorted_names_and_null_is_minus_one():
    codes, names = factorize_to_list(pa.chunked_array([["b", None], ["a", "b"]]))
    assert (codes.tolist(), names) == ([1, -1, 0, 1], ["a", "b"])
    assert first_rows(codes, 2).tolist() == [2, 0]


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=6), max_size=4),
    st.integers(0, 5),
)
def test_a_dictionary_encoded_column_has_the_codes_of_its_text(chunks, start):
    text = pa.chunked_array(chunks, pa.string())[start:]
    by_chunk = pa.chunked_array(
        [chunk.dictionary_encode() for chunk in text.chunks],
        pa.dictionary(pa.int32(), pa.string()),
    )
    codes, names = factorize_to_list(text)
    for column in (by_chunk, as_dictionary(text), as_dictionary(by_chunk)):
        found, distinct = factorize_to_list(column)
        assert (found.tolist(), distinct) == (codes.tolist(), names)
        assert run_starts(column).tolist() == run_starts(text).tolist()
    assert as_dictionary(text).to_pylist() == text.to_pylist()
    assert as_dictionary(text).dictionary.to_pylist() == names


def test_equal_values_and_nulls_do_not_ascend():
    for values, expected in [
        (["a", "b"], True), (["a", "a"], False), (["b", "a"], False), (["a", None], False),
        (["a"], True), ([], True),
    ]:  # fmt: skip
        assert ascends(pa.array(values, pa.string())) is expected


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=6), max_size=4))
def test_concatenated_pieces_are_the_column_they_were_cut_from(chunks):
    for pieces in (chunks, [sorted(filter(None, chunk)) for chunk in sorted(chunks, key=str)]):
        whole = pa.chunked_array(pieces, pa.string())
        column = concat_dictionaries([as_dictionary(piece) for piece in whole.chunks])
        assert column.to_pylist() == whole.to_pylist()
        assert column.dictionary.to_pylist() == as_dictionary(whole).dictionary.to_pylist()


def test_pieces_that_continue_with_the_last_value_of_the_one_before_share_it():
    pieces = [as_dictionary(pa.array(list(text), pa.string())) for text in ("aab", "bbc", "", "cd")]
    column = concat_dictionaries(pieces)
    assert column.dictionary.to_pylist() == ["a", "b", "c", "d"]
    assert "".join(column.to_pylist()) == "aabbbccd"


def test_pieces_whose_values_are_not_sorted_are_concatenated_too():
    pieces = [pa.array(list(text), pa.string()).dictionary_encode() for text in ("za", "bz", "zc")]
    column = concat_dictionaries(pieces)
    assert column.dictionary.to_pylist() == ["a", "b", "c", "z"]
    assert "".join(column.to_pylist()) == "zabzzc"


def test_code_of_null_is_minus_one_without_sorting_too():
    for values in (pa.array(["b", None, "b"]), pa.array(["b", None, "b"]).dictionary_encode()):
        codes, distinct = factorize(values)
        assert (codes.tolist(), distinct.to_pylist()) == ([0, -1, 0], ["b"])


def test_sorted_codes_follow_the_order_of_the_values():
    codes, ids = factorize(pa.array(["b", "a", "c", "a"]), sort=True)

    assert codes.tolist() == [1, 0, 2, 0]
    assert ids.to_pylist() == ["a", "b", "c"]


@given(st.lists(st.sampled_from(["b", "a", "é", "", "c"]), min_size=1, max_size=12))
def test_sorted_codes_do_not_depend_on_how_the_values_are_stored(values):
    expected = [sorted(set(values)).index(value) for value in values]
    plain = pa.array(values, pa.large_string())
    stored = [plain, pa.chunked_array([plain[:2], plain[2:]]), plain.dictionary_encode()]
    for column in stored:
        codes, distinct = factorize(column, sort=True)
        assert (codes.tolist(), distinct.to_pylist()) == (expected, sorted(set(values)))
