"""Functions at the same time; Arrow and numpy release Python's lock while they compute."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
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
        yield from map_in_pool(function, items, pool, n_ahead=2 * n_threads)


def map_in_pool(
    function: Callable[[In], Out], items: Iterable[In], pool: ThreadPoolExecutor, *, n_ahead: int
) -> Iterator[Out]:
    """As `map_ahead`, by the threads of a pool that is the caller's."""
    waiting: deque[Future[Out]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= n_ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class InTurn:
    """Threads for several callers, so that none of them idles at the end of a caller's items.

    One caller's items are made at a time. As soon as its last item waits for a thread, the items
    of the next caller are made.
    """

    def __init__(self, n_threads: int) -> None:
        """No thread is started yet."""
        self._pool, self._n_ahead = ThreadPoolExecutor(n_threads), 2 * n_threads
        self._turn = Lock()

    def map(self, function: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
        """The function of each item, in the order of the items; `items` runs in this thread."""
        found: list[Out] = []
        waiting: deque[Future[Out]] = deque()
        with self._turn:
            for item in items:
                if len(waiting) == self._n_ahead:
                    found.append(waiting.popleft().result())
                waiting.append(self._pool.submit(function, item))
        return [*found, *(future.result() for future in waiting)]
