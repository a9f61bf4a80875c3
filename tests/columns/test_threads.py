import threading

import pytest

from ctc_ray.columns.threads import InTurn, run_both


def test_both_run_at_the_same_time_and_give_their_results():
    meeting = threading.Barrier(2, timeout=10)

    def work(result):
        meeting.wait()
        return result

    assert run_both(lambda: work("a"), lambda: work(2)) == ("a", 2)


@pytest.mark.parametrize("index", [0, 1])
def test_an_error_of_either_is_raised(index):
    works = [lambda: 1, lambda: 1]
    works[index] = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        run_both(*works)


def test_a_caller_begins_when_the_last_item_of_the_one_before_waits_for_a_thread():
    turns, made = InTurn(2), []
    last_and_first = threading.Barrier(2, timeout=10)
    has_begun = threading.Event()

    def items(name):
        for number in range(40):
            made.append((name, number))
            has_begun.set()
            yield name, number

    def work(item):
        if item in (("a", 39), ("b", 0)):
            last_and_first.wait()  # both are in hand at the same time
        return item

    def call(name):
        return turns.map(work, items(name))

    def second():
        assert has_begun.wait(10)
        return call("b")

    found = run_both(lambda: call("a"), second)
    assert found == tuple([(name, number) for number in range(40)] for name in "ab")
    assert made == [*found[0], *found[1]]


def test_an_error_of_one_caller_is_raised_and_the_others_go_on():
    turns = InTurn(2)
    with pytest.raises(ZeroDivisionError):
        turns.map(lambda number: 1 // number, [2, 1, 0, 3])
    assert turns.map(lambda number: number + 1, range(9)) == list(range(1, 10))
