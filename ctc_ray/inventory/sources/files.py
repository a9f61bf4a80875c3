"""The files below a folder, with their relative paths as text."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from ctc_ray.files import storage
from ctc_ray.inventory.events.assemble import TEXT, SourceRows
from ctc_ray.inventory.findings import Findings


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
