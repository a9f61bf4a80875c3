import numpy as np
import pytest
from builders import undecided
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.splits.location_assignment import Assignment
from ctc_ray.splits.location_exchange import Exchange

locations = st.lists(  # the number of images of the classes 0, 1 and 2 at each location
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=12
)


def assigned(images_LC, shares):
    """Locations with these numbers of images per class, put into splits by the shares alone."""
    work = undecided(images_LC, shares)
    work.fill()
    return work


def all_movable(work):
    return np.ones(len(work.chosen), bool)


@given(locations, st.sampled_from([(0.7, 0.3), (0.7, 0.15, 0.15), (0.25,) * 4]))
def test_counts_kept_while_exchanging_equal_fresh_counts_of_the_result(images_LC, shares):
    work = assigned(images_LC, shares)
    for settle in (Exchange.shares_first, Exchange.classes_first):
        exchange = Exchange(work, all_movable(work))
        settle(exchange)
        assert exchange.unevenness() == Exchange(work, all_movable(work)).unevenness()
        reached = np.bincount(work.chosen, work.sizes, len(shares))
        assert work.deficits == pytest.approx(work.targets - reached)


@given(locations)
def test_shares_come_first_and_no_split_loses_a_class(images_LC):
    work = assigned(images_LC, (0.7, 0.15, 0.15))
    before, (_, deviation) = work.n_having.copy(), work.shortfall()
    Exchange(work, all_movable(work)).shares_first()
    assert work.shortfall()[1] <= max(deviation, 0.001) + 1e-9
    assert np.all(work.n_having[before > 0] > 0)


def test_classes_are_evened_where_the_shares_are_met_already():
    work = assigned([(9, 1), (9, 1), (1, 9), (1, 9)], (0.5, 0.5))
    work.move(1, int(work.chosen[0]))  # both locations of one kind in one split
    for location in (2, 3):
        work.move(location, 1 - int(work.chosen[0]))
    exchange = Exchange(work, all_movable(work))
    assert exchange.unevenness() > 0.1
    exchange.classes_first()
    assert exchange.unevenness() == 0
    assert work.shortfall() == (0, 0)


@given(locations, st.lists(st.booleans(), min_size=12, max_size=12))
def test_location_that_is_not_movable_stays(images_LC, is_movable):
    work = assigned(images_LC, (0.7, 0.3))
    movable = np.array(is_movable[: len(images_LC)])
    before = work.chosen.copy()
    Exchange(work, movable).classes_first()
    assert np.array_equal(work.chosen[~movable], before[~movable])


@pytest.mark.parametrize("classes", [[(4,), (3,), (3,)], [(2, 2), (3, 0), (1, 2)]])
def test_exchanges_come_to_an_end_where_no_share_can_be_met(classes, monkeypatch):
    work = assigned(classes, (1 / 3,) * 3)
    moved, move = [], Assignment.move
    monkeypatch.setattr(
        Assignment, "move", lambda self, *where: (moved.append(where), move(self, *where))
    )
    Exchange(work, all_movable(work)).classes_first()
    assert len(moved) < 20  # far below the bound of a thousand exchanges
