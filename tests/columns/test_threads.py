import threading

import pytest

from ctc_ray.columns.threads import both


def test_both_run_at_the_same_time_and_give_their_results():
    meeting = threading.Barrier(2, timeout=10)

    def work(result):
        meeting.wait()
        return result

    assert both(lambda: work("a"), lambda: work(2)) == ("a", 2)


@pytest.mark.parametrize("place", [0, 1])
def test_an_error_of_either_is_raised(place):
    works = [lambda: 1, lambda: 1]
    works[place] = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        both(*works)
