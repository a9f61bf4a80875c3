import threading

import pytest

from ctc_ray.columns.threads import run_both


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
