"""Functions at the same time; Arrow and numpy release Python's lock while they compute."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

First = TypeVar("First")
Second = TypeVar("Second")


def run_both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """The results of two functions that run at the same time in two threads.

    An exception of either function is raised, after both have ended.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(second)
        return first(), future.result()


def map_ahead(
    function: Callable[[In], Out], items: Iterable[In], *, n_threads: int
) -> Iterator[Out]:
    """The function of each item, in the order of the items, by threads.

    At most two items per thread are taken from `items` before their results are asked for. One
    thread is the caller's own.
    """
    if n_threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[Out]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
