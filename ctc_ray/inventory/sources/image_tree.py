"""A folder tree of images as an inventory; its folders may name places and labels."""

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize
from ctc_ray.errors import ConfigError
from ctc_ray.inventory.clock_corrections import ClockCorrections
from ctc_ray.inventory.events.assemble import TEXT, Inventory, SourceRows, assemble
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.blanks import are_named_blank, blanks_beside_labels
from ctc_ray.inventory.sources.camera_names import first_numbered_folders
from ctc_ray.inventory.sources.files import FoundFile, as_valid_text, unique_text
from ctc_ray.inventory.sources.gap_events import group_by_gap

LOCATION, DEPLOYMENT = "location", "deployment"

OUTSIDE = "files_outside_layout"

_NAME = re.compile(r"\{(?P<head>head:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|\*")
_HEAD = "head__"  # begins the names of the groups that are labels


@dataclass(frozen=True)
class TreeImages:
    """The images below a folder, and what they say of themselves."""

    files: Sequence[FoundFile]
    captured_at: pa.Array
    """Time of each file, timestamp[us]; null is unknown."""
    triggers: Mapping[str, pa.Array] | None = None
    """What cameras wrote about their events; see `group_by_gap`."""


@dataclass(frozen=True)
class EventRules:
    """How capture events are made of the images of a camera."""

    gap_s: float = 60
    """See `group_by_gap`."""
    max_images: int | None = None
    """See `group_by_gap`."""
    corrections: ClockCorrections = field(default_factory=ClockCorrections)
    """Applied to the times before anything else."""


def read_tree(
    uri: str,
    images: TreeImages,
    *,
    layout: str | None = None,
    rules: EventRules | None = None,
    allow_unmatched: bool = False,
) -> Inventory:
    """The inventory of the images below a folder; capture events are made by gaps in time.

    Images of one camera are grouped. With a layout a camera is a location and deployment. It is
    the folder of the file if there is no layout, if the layout has no deployment, or if the file
    does not fit the layout. The folder's parts that are labels do not count, and neither do the
    numbers of folders that a camera makes: 101EK113 is the camera of 100EK113 beside it.

    Event ids are made of paths relative to the folder, so the ids and the splits do not change when
    the tree is moved or mounted elsewhere.

    Args:
        layout: the meaning of the folders; see `layout_pattern`.
        allow_unmatched: no error if no file fits the layout.

    Raises:
        ConfigError: there is no file, the layout cannot be read, or no file fits it.
    """
    files, rules = images.files, rules or EventRules()
    pattern = None if layout is None else layout_pattern(layout)
    if not files:
        raise ConfigError(f"{uri}: no image in this folder")
    folders, cameras = _folders(files)
    fields = {DEPLOYMENT: cameras} if pattern is None else folder_fields(folders, pattern)
    findings = Findings()
    if pattern is not None:
        if DEPLOYMENT in fields:
            fields[DEPLOYMENT] = folder_fields(cameras, pattern)[DEPLOYMENT]
        findings = _unfit(files, folders, pattern, layout or "")
        if not allow_unmatched and findings.counts.get(OUTSIDE, 0) == len(files):
            raise ConfigError(_fits_none(uri, files, layout or ""))
    cameras = _cameras(cameras, fields, pattern)
    corrected = rules.corrections.find(
        images.captured_at, fields.get(DEPLOYMENT), fields.get(LOCATION)
    )
    times = corrected.of(images.captured_at)
    names = pa.array([unique_text(file.path) for file in files], TEXT)
    grouped = group_by_gap(
        names,
        times,
        cameras,
        gap_s=rules.gap_s,
        max_images=rules.max_images,
        triggers=images.triggers,
    )
    order, all_rows = pa.array(grouped.order), np.arange(len(files))
    found = {name: values.take(order) for name, values in fields.items()}
    labels = {name: found.pop(_HEAD + name) for name in heads_of(layout or "")}
    rows = SourceRows(
        event_ids=grouped.event_ids,
        image_rows=all_rows,
        image_uris=pa.array([file.uri for file in files], TEXT).take(order),
        observation_rows=all_rows,
        labels=labels,
        location_ids=found.pop(LOCATION, None),
        deployment_ids=found.pop(DEPLOYMENT, None),
        captured_at=times.take(order),
        meta=found,
    )
    rows, findings = _without_blanks(rows, findings.plus(corrected.findings))
    inventory = assemble(rows, where=uri, findings=findings)
    # rows of one event are not merged rows: each is an image
    return replace(inventory, findings=inventory.findings.without("rows_merged"))


def _folders(files: Sequence[FoundFile]) -> tuple[pa.Array, pa.Array]:
    """The folder of each file, and its camera's first folder; null at the root."""
    names = [as_valid_text(posixpath.dirname(file.path)) for file in files]
    first = first_numbered_folders(set(names))
    return tuple(
        pa.array([name or None for name in some], TEXT)
        for some in (names, [first[name] for name in names])
    )


def _without_blanks(rows: SourceRows, findings: Findings) -> tuple[SourceRows, Findings]:
    """The rows without the label empty or blank for images of events with another label."""
    for name, labels in rows.labels.items():
        events = factorize(rows.event_ids, sort=True)[0].astype(np.int64)
        dropped = blanks_beside_labels(events, labels, are_named_blank(labels))
        if dropped.any():
            kept = pa.array(labels.to_pylist(), TEXT, mask=dropped)
            rows = replace(rows, labels={**rows.labels, name: kept})
            findings = findings.counted(blank_beside_labelled=int(dropped.sum()))
    return rows, findings


def _fits_none(uri: str, files: Sequence[FoundFile], layout: str) -> str:
    return (
        f"{uri}: no file fits the layout {layout!r}, e.g. {unique_text(files[0].path)!r}; the "
        "layout names the folders from this one on, without the file (--allow-unmatched goes on)"
    )


def heads_of(layout: str) -> tuple[str, ...]:
    """The heads that a layout names, in its order."""
    return tuple(match["name"] for match in _NAME.finditer(layout) if match["head"])


def layout_pattern(layout: str) -> re.Pattern[str]:
    """A regular expression for the folders that fit a layout, with a group per name in braces.

    The layout begins at the root of the tree; further folders below it are allowed.

    Args:
        layout: folder names separated by slashes, e.g. `{location}/{deployment}`; `{head:species}`
            is the label of that head; `*` stands for any text in a folder's name.

    Raises:
        ConfigError: a part is empty, or a name occurs twice or is not an identifier.
    """
    parts = layout.strip("/").split("/")
    names = [match[0] for match in _NAME.finditer(layout) if match["name"]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"layout: {layout!r} names {twice[0]} twice")
    if not all(parts) or any(sign in _NAME.sub("", layout) for sign in "{}"):
        raise ConfigError(
            f"layout: {layout!r} cannot be read; write folders as in {{location}}/{{deployment}} or"
            " {location}/{head:species}, with names of letters, digits and _ in braces, * for any"
            " folder"
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
        group = f"{_HEAD if match['head'] else ''}{match['name']}"
        named = f"(?P<{group}>[^/]+)" if match["name"] else "[^/]+"
        pattern, end = pattern + re.escape(part[end : match.start()]) + named, match.end()
    return pattern + re.escape(part[end:])


def _cameras(
    folders: pa.Array, fields: dict[str, pa.Array], pattern: re.Pattern[str] | None
) -> pa.Array:
    """The camera of each file: its location and deployment, else its folder without labels.

    A location with its deployment has a name that no folder has.
    """
    empty = pa.nulls(len(folders), TEXT)
    location, deployment = fields.get(LOCATION, empty), fields.get(DEPLOYMENT, empty)
    slashes = pa.scalar("//", TEXT)  # occurs in no path
    camera = pc.binary_join_element_wise(pc.fill_null(location, ""), deployment, slashes)
    if pattern is None:
        return camera
    encoded = folders.dictionary_encode()
    unlabelled = [_without_labels(folder, pattern) for folder in encoded.dictionary.to_pylist()]
    return pc.coalesce(camera, pa.array(unlabelled, TEXT).take(encoded.indices))


def _without_labels(folder: str, pattern: re.Pattern[str]) -> str:
    match = pattern.match(folder)
    for name in sorted(pattern.groupindex, key=pattern.groupindex.__getitem__, reverse=True):
        if match is not None and name.startswith(_HEAD):
            folder = folder[: match.start(name)] + folder[match.end(name) :]
    return folder


def _unfit(
    files: Sequence[FoundFile], folders: pa.Array, pattern: re.Pattern[str], layout: str
) -> Findings:
    """`files_outside_layout`: files whose folders do not fit the layout."""
    fits = pc.fill_null(pc.match_substring_regex(folders, pattern.pattern), False)
    outside = np.flatnonzero(~fits.to_numpy(zero_copy_only=False)).tolist()
    paths = [unique_text(files[index].path) for index in outside]
    return Findings().listed(OUTSIDE, paths, [f"does not fit {layout}"] * len(paths))
