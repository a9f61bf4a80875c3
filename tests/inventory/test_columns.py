import pyarrow as pa

from ctc_ray.inventory.columns import encode, first_rows


def test_numbers_follow_the_sorted_names_and_null_is_none_of_them():
    codes, names = encode(pa.chunked_array([["b", None], ["a", "b"]]))
    assert (codes.tolist(), names) == ([1, -1, 0, 1], ["a", "b"])
    assert first_rows(codes, 2).tolist() == [2, 0]
