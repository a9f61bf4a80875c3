from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.runs.layout import number_of_part, part_stem

# as many digits as there are units in the largest folder that anybody could have, and around edges
numbers = st.integers(0, 10**12) | st.sampled_from(
    [10**k + d for k in range(1, 12) for d in (-1, 0, 1)]
)


@given(st.lists(numbers, unique=True, max_size=50))
def test_names_sort_as_the_numbers_do(some: list[int]) -> None:
    """With any ending, and as bytes, which is how object stores list them."""
    for ending in ("", ".parquet"):
        names = [f"images/{part_stem(number)}{ending}" for number in sorted(some)]
        assert sorted(names) == names
        assert sorted(names, key=str.encode) == names


@given(numbers)
def test_a_name_tells_its_number(number: int) -> None:
    assert number_of_part(part_stem(number)) == number


def test_short_numbers_look_as_they_always_have() -> None:
    assert [part_stem(n) for n in (0, 42, 99_999)] == ["part-00000", "part-00042", "part-99999"]
    assert part_stem(100_000) == "part-a100000"


def test_other_names_have_no_number() -> None:
    for name in ("part-3", "part-00003 (copy)", "parts-00003", "part-", "part-aa100000"):
        assert number_of_part(name) is None
