from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.training.epoch_shares import Share, Stretch, divided, n_items, without_first


def items(share: Share) -> list[tuple[int, int, int]]:
    return [
        (part.n_workers, part.rank, item) for part in share for item in range(part.start, part.stop)
    ]


@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 7)), max_size=5),
)
def test_each_item_is_read_once_however_often_the_number_of_workers_changes(
    each: int, n_workers: int, changes: list[tuple[int, int]]
) -> None:
    shares: list[Share] = [(Stretch(n_workers, rank, 0, each),) for rank in range(n_workers)]
    wanted = Counter(item for share in shares for item in items(share))
    read: Counter[tuple[int, int, int]] = Counter()
    most_twice = 0
    for n_done, n_next in changes:
        n_done = min(n_done, n_items(shares[0]) - 1)
        for share in shares:
            read.update(items(share)[:n_done])
        shares = divided([without_first(share, n_done) for share in shares], n_next)
        assert len({n_items(share) for share in shares}) == 1
        most_twice += n_next - 1
    read.update(item for share in shares for item in items(share))
    assert read.keys() == wanted.keys()
    assert (read - wanted).total() <= most_twice


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_what_divides_evenly_is_not_read_twice(each: int, n_workers: int, n_next: int) -> None:
    shares: list[Share] = [
        (Stretch(n_workers, rank, 0, each * n_next),) for rank in range(n_workers)
    ]
    again = divided(shares, n_next)
    found = [item for share in again for item in items(share)]
    assert found == [item for share in shares for item in items(share)]
