"""Versions of files: a text that changes when a file is written, so that a new one is noticed.

That is the ETag of an object, and size and time of a file on a disk.
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ctc_ray.errors import ConfigError
from ctc_ray.files import local_files, object_store, storage

_FILES_PER_TASK = 256  # a future for each of millions of files would take gigabytes


def read_with_version(uri: str) -> tuple[bytes, str]:
    """The content of a file, and its version.

    Raises:
        FileNotFoundError, ConnectionError, OSError: see `storage.read_bytes`.
    """
    if storage.is_remote(uri):
        return storage.operation("read", uri, lambda: object_store.read_with_version(uri))
    path = storage.local_path(uri)
    return storage.read_patiently(uri, lambda: local_files.read_with_version(path))


def versions_of(uris: Sequence[str | None], *, n_threads: int) -> list[str | None]:
    """The version of each file; None where there is none, or the URI is of a kind not read.

    Folders of a store are listed, each once; no file is opened.

    Raises:
        ConnectionError, OSError: nothing is known about a file; see `storage.read_bytes`.
    """
    remote = {uri for uri in uris if uri is not None and storage.is_remote(uri)}
    folders = sorted({_folder(uri) for uri in remote})
    with ThreadPoolExecutor(n_threads) as pool:
        listed = dict(zip(folders, pool.map(_listed, folders), strict=True))

        def find(uri: str | None) -> str | None:
            if uri in remote:
                return listed[_folder(uri)].get(uri.rpartition("/")[2])
            return None if uri is None else _local(uri)

        parts = [uris[i : i + _FILES_PER_TASK] for i in range(0, len(uris), _FILES_PER_TASK)]
        found = pool.map(lambda part: [find(uri) for uri in part], parts)
        return list(itertools.chain.from_iterable(found))


def _folder(uri: str) -> str:
    return uri.rpartition("/")[0]


def _listed(folder_uri: str) -> dict[str, str]:
    try:
        return storage.operation("list", folder_uri, lambda: object_store.versions_in(folder_uri))
    except (FileNotFoundError, ConfigError):
        return {}


def _local(uri: str) -> str | None:
    path = storage.local_path(uri)
    return local_files.patiently(
        lambda: storage.operation("stat", uri, lambda: local_files.version(path))
    )
