"""Object stores fail now and then: ask again, ever more slowly, and tell apart what stays so.

Arrow itself asks S3 again for about 6 s, every 0.2 s: after a 503, a lost connection, or a body
that is shorter than its announced length. What is here outlasts longer outages, about a minute.
"""

import logging
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Longest pause before the second and each later attempt."""

# Of a store's answer Arrow tells only a text. A GET's 403 is ACCESS_DENIED whatever its cause, e.g.
# an object that lies in an archive. 400 may be an expired token, or a request that was too slow.
_MISSING = re.compile(
    r"AWS Error (NO_SUCH_KEY|NO_SUCH_BUCKET|RESOURCE_NOT_FOUND)|Bucket '.*' not found"
    r"|Status\(NOT_FOUND"
)
_REFUSED = re.compile(
    r"AWS Error (ACCESS_DENIED|INVALID_OBJECT_STATE)|Status\(PERMISSION_DENIED|Not a regular file"
)


def patiently(
    uri: str, ask: Callable[[], Answer], *, sleep: Callable[[float], object] = time.sleep
) -> Answer:
    """What `ask` returns, which asks an object store and may do so more than once.

    Raises:
        FileNotFoundError: there is no such object, or no such bucket.
        PermissionError: the store refuses this object.
        ConnectionError: it failed to the last attempt; nothing is known about the object.
    """
    for longest_s in PAUSES_S:
        try:
            return _ask_once(uri, ask)
        except ConnectionError as error:
            pause_s = longest_s * random.uniform(0.5, 1)  # not all workers at the same moment
            logger.info("%s; asking again in %.1f s", error, pause_s)
        sleep(pause_s)
    return _ask_once(uri, ask)


def _ask_once(uri: str, ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except OSError as error:
        text = " ".join(str(error).split())
        if isinstance(error, FileNotFoundError) or _MISSING.search(text):
            raise FileNotFoundError(f"{uri}: {text}") from error
        if isinstance(error, PermissionError) or _REFUSED.search(text):
            raise PermissionError(f"{uri}: {text}") from error
        raise ConnectionError(f"{uri}: {text}") from error
