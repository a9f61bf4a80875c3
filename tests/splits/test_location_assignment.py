import numpy as np
import pytest
from builders import undecided
from hypothesis import given
from hypothesis import strategies as st


def test_rarest_class_is_covered_first():
    work = undecided([(9, 0), (9, 1), (9, 0), (9, 1), (9, 0), (9, 0)], (0.5, 0.5))
    work.cover_classes()
    assert sorted(work.chosen[[1, 3]]) == [0, 1]
    assert work.shortfall()[0] == 0


def test_class_of_fewer_locations_than_splits_does_not_count_as_missing():
    work = undecided([(9, 0), (9, 1), (9, 0)], (0.4, 0.3, 0.3))
    work.cover_classes()
    work.fill()
    assert work.shortfall()[0] == 0
    assert sorted(work.chosen) == [0, 1, 2]


def test_decided_location_stays_and_counts():
    work = undecided([(8,), (1,), (1,)], (0.8, 0.2), chosen=[1, -1, -1])
    free = work.chosen < 0
    work.cover_classes()
    work.fill()
    work.even_shares(free)
    assert work.chosen.tolist() == [1, 0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2)), max_size=20),
)
def test_moves_keep_the_counts_right(images_LC, moves):
    shares = (0.5, 0.3, 0.2)
    work = undecided(images_LC, shares)
    work.cover_classes()
    work.fill()
    for location, split in moves:
        work.move(location % len(images_LC), split)
    again = undecided(images_LC, shares, chosen=work.chosen)
    assert work.deficits == pytest.approx(again.deficits)
    assert np.array_equal(work.n_having, again.n_having)
    assert np.array_equal(work.n_open, again.n_open)
