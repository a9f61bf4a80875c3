"""The files below a folder, with their relative paths as text."""

import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from ctc_ray.files import storage
from ctc_ray.inventory.events.assemble import TEXT, SourceRows
from ctc_ray.inventory.findings import Findings

# folders in which disk stations and operating systems keep thumbnails, deleted files and indexes
_OF_SYSTEMS = frozenset(
    (
        *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "lost+found"),
        *("$RECYCLE.BIN", "System Volume Information", "__MACOSX"),
    )
)


@dataclass(frozen=True)
class FoundFile:
    """A file below a folder."""

    uri: str
    path: str
    """Relative to the folder; bytes that are not UTF-8 are lone surrogates, as in os.fsdecode."""


def find_files(
    folder_uri: str, *, on_closed: Callable[[OSError], object] | None = None
) -> list[FoundFile]:
    """All files below a folder at any depth, sorted by their bytes.

    Args:
        on_closed: see `storage.list_files`.

    Raises:
        ConfigError: the folder does not exist.
    """
    if storage.is_remote(folder_uri):
        below = len(folder_uri.rstrip("/")) + 1
        return [FoundFile(uri, uri[below:]) for uri in storage.list_files(folder_uri)]
    folder = storage.local_path(folder_uri)
    found = []
    for uri in storage.list_files(folder_uri, on_closed=on_closed):
        path = storage.local_path(uri)
        root = folder if path == uri else os.path.abspath(folder)
        found.append(FoundFile(uri, path[len(root.rstrip("/")) + 1 :]))
    return found


def is_set_aside(path: str) -> bool:
    """Whether a file or folder is hidden or in a folder of a system, such as @eaDir.

    Args:
        path: relative to the folder that is read.
    """
    return any(part.startswith(".") or part in _OF_SYSTEMS for part in path.split("/"))


def without_set_aside(files: Sequence[FoundFile]) -> tuple[list[FoundFile], Findings]:
    """The files that are to be read; the others are `not_an_image`."""
    hidden = [unique_text(file.path) for file in files if is_set_aside(file.path)]
    kept = [file for file in files if not is_set_aside(file.path)]
    why = ["hidden, or what a system keeps beside photographs"] * len(hidden)
    return kept, Findings().listed("not_an_image", hidden, why)


def linked_twice(folder_uri: str, files: Sequence[FoundFile]) -> Findings:
    """`folders_linked_twice`: folders with files that are also read under an earlier name."""
    folders = sorted({posixpath.dirname(file.path) for file in files})
    real = storage.real_folders(folder_uri, folders)
    first: dict[str, str] = {}
    for folder in sorted(folders, key=lambda name: (real[name].is_linked, name)):
        first.setdefault(real[folder].path, folder)
    again = [folder for folder in folders if first[real[folder].path] != folder]
    details = [f"is {unique_text(first[real[folder].path])}" for folder in again]
    return Findings().listed("folders_linked_twice", list(map(unique_text, again)), details)


def unreadable_folders(errors: Sequence[OSError]) -> Findings:
    """`unreadable_folders`: folders that cannot be listed; their files are left out."""
    folders = [storage.as_text(os.fsdecode(error.filename)) for error in errors]
    return Findings().listed("unreadable_folders", folders, [error.strerror for error in errors])


def as_valid_text(path: str) -> str:
    """The path; percent-encoded if it is not valid UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return quote(os.fsencode(path))
    return path


def unique_text(path: str) -> str:
    """A relative path as text, different for different paths.

    A percent-encoded path begins with a slash, which no relative path does.
    """
    text = as_valid_text(path)
    return text if text == path else f"/{text}"


def one_event_per_file(
    event_ids: Sequence[str], files: Sequence[FoundFile], labels: dict[str, list[str]]
) -> SourceRows:
    """Rows that are each an event of one image, in the order of the files."""
    rows = np.arange(len(files))
    return SourceRows(
        event_ids=pa.array(event_ids, TEXT),
        image_rows=rows,
        image_uris=pa.array([file.uri for file in files], TEXT),
        observation_rows=rows,
        labels={head: pa.array(values, TEXT) for head, values in labels.items()},
    )
