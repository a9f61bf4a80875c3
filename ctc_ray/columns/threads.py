"""Two functions at the same time; Arrow and numpy release Python's lock while they compute."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


def run_both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """The results of two functions that run at the same time in two threads.

    An exception of either function is raised, after both have ended.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(second)
        return first(), future.result()
