"""Versions of files: a text that changes when a file is written, so that a new one is noticed.

That is the ETag of an object, and size and time of a file on a disk.
"""

import os

from ctc_ray.files import local_files, object_store, storage


def folder_and_name(uri: str) -> tuple[str, str]:
    """The folder that a file lies in, and the file's name there."""
    if storage.is_remote(uri):
        folder, _, name = uri.rpartition("/")
        return folder, name
    folder, name = os.path.split(storage.local_path(uri))
    return folder or ".", name


def read_with_version(uri: str) -> tuple[bytes, str]:
    """The content of a file, and its version.

    Raises:
        FileNotFoundError, ConnectionError, OSError: see `storage.read_bytes`.
    """
    if storage.is_remote(uri):
        return storage.operation("read", uri, lambda: object_store.read_with_version(uri))
    path = storage.local_path(uri)
    return storage.read_patiently(uri, lambda: local_files.read_with_version(path))


def versions_in(folder_uri: str) -> dict[str, str]:
    """File name -> version, of the files directly in a folder; empty if there is no such folder.

    Raises:
        ConnectionError, OSError: see `storage.read_bytes`.
    """
    try:
        if storage.is_remote(folder_uri):
            return storage.operation(
                "list", folder_uri, lambda: object_store.versions_in(folder_uri)
            )
        path = storage.local_path(folder_uri)
        return local_files.patiently(
            lambda: storage.operation("list", folder_uri, lambda: local_files.versions_in(path))
        )
    except (FileNotFoundError, NotADirectoryError):
        return {}
