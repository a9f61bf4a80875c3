"""A folder tree of images without labels, as an inventory."""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import ConfigError
from ctc_ray.inventory.events.assemble import TEXT, Inventory, SourceRows, assemble
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.files import (
    FoundFile,
    as_valid_text,
    find_files,
    one_event_per_file,
    unique_text,
    unreadable_folders,
)
from ctc_ray.inventory.sources.gap_events import group_by_gap

LOCATION, DEPLOYMENT = "location", "deployment"

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}|(\*)")


def read_images(uri: str) -> Inventory:
    """The inventory of all files below a folder, at any depth; each file is an event of its own.

    The event id is the path relative to the folder; a path that is not UTF-8 is percent-encoded
    after a slash. There are no heads. Files that are not images are kept and become failures when
    they are decoded.

    Raises:
        ConfigError: the folder does not exist or has no file.
    """
    closed: list[OSError] = []
    files = find_files(uri, on_closed=closed.append)
    if not files:
        raise ConfigError(f"{uri}: no file in this folder")
    event_ids = [unique_text(file.path) for file in files]
    rows = one_event_per_file(event_ids, files, {})
    return assemble(rows, where=uri, findings=unreadable_folders(closed))


def read_tree(
    uri: str,
    files: Sequence[FoundFile],
    captured_at: pa.Array,
    *,
    layout: str | None,
    gap_s: float,
    max_images: int | None,
) -> Inventory:
    """The inventory of the images below a folder; capture events are made by gaps in time.

    Images of one camera are grouped. With a layout a camera is a location and deployment. It is
    the folder of the file if there is no layout, if the layout has no deployment, or if the file
    does not fit the layout.

    Event ids are made of paths relative to the folder, so the ids and the splits do not change when
    the tree is moved or mounted elsewhere.

    Args:
        files: the images.
        captured_at: time of each file, timestamp[us]; null is unknown.
        layout: the meaning of the folders; see `layout_pattern`.
        gap_s: see `group_by_gap`.
        max_images: see `group_by_gap`.

    Raises:
        ConfigError: there is no file, or the layout cannot be read.
    """
    pattern = None if layout is None else layout_pattern(layout)
    if not files:
        raise ConfigError(f"{uri}: no image in this folder")
    folders = pa.array([as_valid_text(posixpath.dirname(file.path)) for file in files], TEXT)
    folders = pc.if_else(pc.equal(folders, ""), pa.scalar(None, TEXT), folders)
    fields = {DEPLOYMENT: folders} if pattern is None else folder_fields(folders, pattern)
    uris = pa.array([file.uri for file in files], TEXT)
    names = pa.array([unique_text(file.path) for file in files], TEXT)
    grouped = group_by_gap(
        names, captured_at, _cameras(folders, fields), gap_s=gap_s, max_images=max_images
    )
    order, all_rows = pa.array(grouped.order), np.arange(len(files))
    found = {name: values.take(order) for name, values in fields.items()}
    rows = SourceRows(
        event_ids=grouped.event_ids,
        image_rows=all_rows,
        image_uris=uris.take(order),
        observation_rows=all_rows,
        location_ids=found.pop(LOCATION, None),
        deployment_ids=found.pop(DEPLOYMENT, None),
        captured_at=captured_at.take(order),
        meta=found,
    )
    findings = Findings() if pattern is None else _unfit(files, folders, pattern, layout or "")
    inventory = assemble(rows, where=uri, findings=findings)
    # rows of one event are not merged rows: each is an image
    return replace(inventory, findings=inventory.findings.without("rows_merged"))


def layout_pattern(layout: str) -> re.Pattern[str]:
    """A regular expression for the folders that fit a layout, with a group per name in braces.

    The layout begins at the root of the tree; further folders below it are allowed.

    Args:
        layout: folder names separated by slashes, e.g. `{location}/{deployment}`; `*` stands for
            any text in a folder's name.

    Raises:
        ConfigError: a part is empty, or a name occurs twice or is not an identifier.
    """
    parts = layout.strip("/").split("/")
    names = [match[1] for match in _NAME.finditer(layout) if match[1]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"layout: {layout!r} names {{{twice[0]}}} twice")
    if not all(parts) or any(sign in _NAME.sub("", layout) for sign in "{}"):
        raise ConfigError(
            f"layout: {layout!r} cannot be read; write folders as in {{location}}/{{deployment}},"
            " with names of letters, digits and _ in braces, * for any folder"
        )
    return re.compile("(?s)^" + "/".join(map(_part_pattern, parts)) + "(?:/.*)?$")


def folder_fields(folders: pa.Array, pattern: re.Pattern[str]) -> dict[str, pa.Array]:
    """Name in the layout -> its text in each folder; null where the folder does not fit.

    Args:
        pattern: from `layout_pattern`.
    """
    if not pattern.groups:
        return {}
    parts = pc.extract_regex(folders, pattern.pattern)
    return {name: pc.struct_field(parts, name).cast(TEXT) for name in pattern.groupindex}


def _part_pattern(part: str) -> str:
    pattern, end = "", 0
    for match in _NAME.finditer(part):
        named = f"(?P<{match[1]}>[^/]+)" if match[1] else "[^/]+"
        pattern, end = pattern + re.escape(part[end : match.start()]) + named, match.end()
    return pattern + re.escape(part[end:])


def _cameras(folders: pa.Array, fields: dict[str, pa.Array]) -> pa.Array:
    """The camera of each file: a unique name of its location and deployment, else its folder."""
    empty = pa.nulls(len(folders), TEXT)
    location, deployment = fields.get(LOCATION, empty), fields.get(DEPLOYMENT, empty)
    slashes = pa.scalar("//", TEXT)  # occurs in no path
    camera = pc.binary_join_element_wise(pc.fill_null(location, ""), deployment, slashes)
    return pc.coalesce(camera, folders)


def _unfit(
    files: Sequence[FoundFile], folders: pa.Array, pattern: re.Pattern[str], layout: str
) -> Findings:
    """`files_outside_layout`: files whose folders do not fit the layout."""
    fits = pc.fill_null(pc.match_substring_regex(folders, pattern.pattern), False)
    outside = np.flatnonzero(~fits.to_numpy(zero_copy_only=False)).tolist()
    paths = [unique_text(files[index].path) for index in outside]
    return Findings().listed("files_outside_layout", paths, [f"does not fit {layout}"] * len(paths))
