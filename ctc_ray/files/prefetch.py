"""Items and file contents that threads make before their consumer asks for them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.files.versions import read_with_version
from ctc_ray.schemas import Failure

T = TypeVar("T")

_GROUP_BYTES = 256_000
_MOST_FILES = 16


def prefetch(items: Iterator[T], pool: ThreadPoolExecutor, *, n_ahead: int) -> Iterator[T]:
    """The items in their order; at most `n_ahead` are made before the consumer asks for them.

    An error of `items` is raised when the consumer reaches it. Closing the iterator cancels the
    items that the pool has not begun.

    Args:
        pool: has one thread, so that only one item is made at a time.
    """
    waiting: deque[Future[list[T]]] = deque()
    try:
        for _ in range(n_ahead):
            waiting.append(pool.submit(_next, items))
        while True:
            item = waiting.popleft().result()
            waiting.append(pool.submit(_next, items))
            if not item:
                return
            yield item[0]
    finally:
        for future in waiting:
            future.cancel()


def _next(items: Iterator[T]) -> list[T]:
    """The next item in a list; an empty list at the end."""
    for item in items:
        return [item]
    return []


@dataclass(frozen=True)
class FileContent:
    """A file as it was read."""

    raw: bytes | Failure
    """Its content, or why it cannot be read."""
    version: str | None
    """See `versions`; None: it cannot be read."""


def prefetch_files(
    uris: Sequence[str | Failure], n_threads: int | None
) -> Iterator[list[FileContent]]:
    """The files with their versions, in the order of `uris`, several small ones at a time.

    Handing one file from thread to thread takes as long as decoding a tiny image.

    Threads read at most `n_threads` groups before the consumer asks for them: a file of 256 kB or
    more is a group, e.g. 16 of 5 MB.

    Args:
        uris: or why a row names none, see `image_uri`.
        n_threads: None means 4, or 16 if a file is in an object store.

    Raises:
        ConnectionError: see `fetch`.
    """
    is_remote = any(isinstance(uri, str) and storage.is_remote(uri) for uri in uris)
    n_threads = n_threads or (16 if is_remote else 4)
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[list[FileContent]]] = deque()
        group: list[FileContent] = []
        start, n_files = 0, 1  # nothing is known of the first
        while True:
            while start < len(uris) and len(waiting) < n_threads:
                waiting.append(pool.submit(_fetch_all, uris[start : start + n_files]))
                start += n_files
            if group:
                yield group
            if not waiting:
                return
            group = waiting.popleft().result()
            n_files = _files_per_group(group)


def _files_per_group(group: Sequence[FileContent]) -> int:
    """How many files make the next group: as many as there is room for, if all are this large.

    At most twice as many as before, for a folder may have large files behind small ones.
    """
    sizes = [len(file.raw) for file in group if isinstance(file.raw, bytes)]
    largest = max(1, max(sizes, default=_GROUP_BYTES))
    return max(1, min(_MOST_FILES, 2 * len(group), _GROUP_BYTES // largest))


def _fetch_all(uris: Sequence[str | Failure]) -> list[FileContent]:
    return [_fetch(uri) for uri in uris]


def fetch(uri: str | Failure) -> bytes | Failure:
    """The content of a file, or the failure if it cannot be read; a failure stays one.

    Raises:
        ConnectionError: the object store did not answer, so the state of the file is unknown.
    """
    return _fetch(uri).raw


def _fetch(uri: str | Failure) -> FileContent:
    if isinstance(uri, Failure):
        return FileContent(uri, None)
    try:
        return FileContent(*read_with_version(uri))
    except FileNotFoundError:
        return FileContent(Failure.MISSING, None)
    except ConnectionError:  # a failure would be committed for ever
        raise
    except (OSError, ConfigError):  # ConfigError: a URI of a kind that is not read, e.g. https
        return FileContent(Failure.UNREADABLE, None)
