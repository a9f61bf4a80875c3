import numpy as np
import pytest
from builders import undecided
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.splits.location_assignment import Assignment
from ctc_ray.splits.location_exchange import Exchange

places = st.lists(  # each with its images of the classes 0, 1 and 2
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=12
)


def assigned(images_LC, shares):
    """Locations with so many images of each class, given to splits without regard to classes."""
    work = undecided(images_LC, shares)
    work.fill()
    return work


def every_one(work):
    return np.ones(len(work.chosen), bool)


@given(places, st.sampled_from([(0.7, 0.3), (0.7, 0.15, 0.15), (0.25,) * 4]))
def test_what_is_kept_in_mind_is_what_a_fresh_look_at_the_result_gives(images_LC, shares):
    work = assigned(images_LC, shares)
    for settle in (Exchange.shares_first, Exchange.classes_first):
        exchange = Exchange(work, every_one(work))
        settle(exchange)
        assert exchange.unevenness() == Exchange(work, every_one(work)).unevenness()
        reached = np.bincount(work.chosen, work.sizes, len(shares))
        assert work.deficits == pytest.approx(work.targets - reached)


@given(places)
def test_shares_come_first_and_no_split_loses_a_class(images_LC):
    work = assigned(images_LC, (0.7, 0.15, 0.15))
    before, (_, fault) = work.n_having.copy(), work.fault()
    Exchange(work, every_one(work)).shares_first()
    assert work.fault()[1] <= max(fault, 0.001) + 1e-9
    assert np.all(work.n_having[before > 0] > 0)


def test_classes_are_evened_where_the_shares_are_met_already():
    work = assigned([(9, 1), (9, 1), (1, 9), (1, 9)], (0.5, 0.5))
    work.move(1, int(work.chosen[0]))  # both of one kind on one side
    for place in (2, 3):
        work.move(place, 1 - int(work.chosen[0]))
    exchange = Exchange(work, every_one(work))
    assert exchange.unevenness() > 0.1
    exchange.classes_first()
    assert exchange.unevenness() == 0
    assert work.fault() == (0, 0)


@given(places, st.lists(st.booleans(), min_size=12, max_size=12))
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
    Exchange(work, every_one(work)).classes_first()
    assert len(moved) < 20  # of a thousand steps each has two
