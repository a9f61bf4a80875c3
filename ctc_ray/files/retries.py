"""Object stores fail now and then: ask again, ever more slowly, and not where it is no use.

obstore itself asks again a few times within a second, after a 5xx and a lost connection. What is
here outlasts longer outages, about a minute.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Longest pause before the second and each later attempt."""


class UnusableStoreError(ConnectionError):
    """Nothing can be asked of the store with these settings, now or later; wrong keys, e.g."""


def patiently(
    ask: Callable[[], Answer], *, sleep: Callable[[float], object] = time.sleep
) -> Answer:
    """What `ask` returns, which asks an object store and may do so more than once.

    Raises:
        ConnectionError: it failed to the last attempt; nothing is known about the object.
    """
    for longest_s in PAUSES_S:
        try:
            return ask()
        except UnusableStoreError:
            raise
        except ConnectionError as error:
            pause_s = longest_s * random.uniform(0.5, 1)  # not all workers at the same moment
            logger.info("%s; asking again in %.1f s", error, pause_s)
        sleep(pause_s)
    return ask()
