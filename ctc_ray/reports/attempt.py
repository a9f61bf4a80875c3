"""Drawing a report for a result that is complete without one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def attempt(uri: str) -> Iterator[None]:
    """A report that cannot be drawn or written is one warning, and ends nothing.

    Args:
        uri: of the report.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001  # a chart library or the store may raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("%s was not written: %s; the results do not need it", uri, reason)
