"""Contents of many files, read by threads a little ahead of their consumer."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.schemas import Failure


def read_ahead(uris: list[str], n_threads: int | None) -> Iterator[bytes | Failure]:
    """The content of each file in order, read by threads a little ahead of the consumer.

    Memory holds at most `n_threads` files that are not yet consumed, e.g. 16 of 5 MB.

    Args:
        n_threads: None: 4, or 16 where an object store is read.

    Raises:
        ConnectionError: as in `fetch`.
    """
    n_threads = n_threads or (16 if any(map(storage.is_remote, uris)) else 4)
    with ThreadPoolExecutor(n_threads) as pool:
        waiting = deque(pool.submit(fetch, uri) for uri in uris[:n_threads])
        for uri in [*uris[n_threads:], *[None] * len(waiting)]:
            content = waiting.popleft().result()
            if uri is not None:
                waiting.append(pool.submit(fetch, uri))
            yield content


def fetch(uri: str) -> bytes | Failure:
    """The content of a file, or why there is none.

    Raises:
        ConnectionError: an object store could not be asked, so nothing is known about the file.
    """
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        return Failure.MISSING
    except ConnectionError:  # a failure would be committed for ever
        raise
    except (OSError, ConfigError):  # ConfigError: a URI of a kind that is not read, e.g. https
        return Failure.UNREADABLE
