"""What an inventory holds, counted, and what in it is likely to be a mistake."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import LabelError
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.inventory_images import InventoryImages

_FIRST_YEAR = 2000
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class LabelCount:
    """How often a label was given."""

    label: str | None
    """None: not labelled."""
    count: int
    """Observations; those of an event are counted once, however many images it has."""
    share: float
    """Of all observations, in [0, 1]."""


def count_labels(
    observations_E: pa.Array | pa.ChunkedArray, heads: Sequence[str]
) -> dict[str, list[LabelCount]]:
    """The labels of each head, most frequent first, then by label, the missing one last.

    Args:
        observations_E: the list of observations of each event.

    Raises:
        LabelError: there is no such head.
    """
    observations = pc.list_flatten(observations_E)
    return {head: _counts(labels_of(observations, head)) for head in heads}


def head_names(list_type: pa.ListType) -> list[str]:
    """The heads of a column of observations."""
    kind = list_type.value_type
    return [field.name for field in kind] if pa.types.is_struct(kind) else []


def labels_of(observations: pa.Array | pa.ChunkedArray, head: str) -> pa.Array | pa.ChunkedArray:
    """The label of each observation.

    Raises:
        LabelError: there is no such head.
    """
    known = head_names(pa.list_(observations.type))
    if head not in known:
        raise LabelError(f"head {head!r} not found; heads are {', '.join(known) or 'none'}")
    return pc.struct_field(observations, [known.index(head)])


def check_labels(
    observations_E: pa.Array, heads: Sequence[str], *, rare_class_events: int
) -> Findings:
    """Findings about the labels of each head, from the list of observations of each event.

    - `labels_differ_in_case_or_spaces`: classes that are perhaps one, "Zebra" and "zebra "
    - `rare_classes`: classes of fewer than `rare_class_events` capture events
    """
    findings = Findings()
    for head in heads:
        counts = _events_of_classes(observations_E, head)
        alike: dict[str, list[str]] = {}
        for label in sorted(counts):
            alike.setdefault("".join(label.split()).casefold(), []).append(label)
        groups = [labels for labels in alike.values() if len(labels) > 1]
        findings = findings.listed(
            "labels_differ_in_case_or_spaces",
            [head] * len(groups),
            [", ".join(f"{label!r} {counts[label]:,} events" for label in g) for g in groups],
        )
        rare = [label for label, n in counts.items() if n < rare_class_events]
        rare.sort(key=lambda label: (counts[label], label))
        findings = findings.listed(
            "rare_classes",
            [f"{head}: {label}" for label in rare],
            [f"{counts[label]} event{'s' if counts[label] != 1 else ''}" for label in rare],
        )
    return findings


def check_clocks(
    image_uris: pa.Array, captured_at: pa.Array | None, cameras: npt.NDArray[np.int32]
) -> Findings:
    """`clock_resets`: images whose time shows that the camera's clock was set back, or never set.

    1. The year is before 2000, or the day is 2000-01-01: where clocks begin.
    2. Among the images of one camera, in the order of their names, shorter ones first so that 9
       comes before 10, the time is more than a day before that of the image before it. Only the
       first image behind the jump is listed. Images of unknown cameras are left out here: they may
       be of many; and so are web addresses, which are no names that a camera gave.

    Args:
        captured_at: timestamp[us]; None: no image has a time.
        cameras: number of each image's camera; -1 is not known.
    """
    if captured_at is None or captured_at.null_count == len(captured_at):
        return Findings()
    dated = captured_at.is_valid().to_numpy(zero_copy_only=False)
    micros = captured_at.fill_null(0).cast(pa.int64()).to_numpy()
    days = micros // _DAY_US
    unset = dated & ((days < _day(f"{_FIRST_YEAR}-01-01")) | (days == _day("2000-01-01")))
    is_address = pc.or_(*(pc.starts_with(image_uris, begin) for begin in ("http://", "https://")))
    is_named = ~is_address.to_numpy(zero_copy_only=False)
    before, later = _jumps_back(image_uris, micros, np.where(dated & is_named, cameras, -1))
    chosen = ~unset[later]  # one finding per image
    details = pc.binary_join_element_wise(
        _shown(captured_at, later[chosen]), _shown(captured_at, before[chosen]), " after "
    )
    never_set = np.flatnonzero(unset)
    findings = Findings().listed(
        "clock_resets", image_uris.take(pa.array(never_set)), _shown(captured_at, never_set)
    )
    uris = image_uris.take(pa.array(later[chosen]))
    return findings.listed("clock_resets", uris, details)


def check_images(images: InventoryImages) -> Findings:
    """`images_of_several_events`: images that an earlier event names too, and both events."""
    layout = images.layout
    hashes_N = images.uri_hashes[layout.places]
    in_order = np.sort(hashes_N)
    doubtful = in_order[1:][in_order[1:] == in_order[:-1]]
    if len(doubtful) == 0:
        return Findings()
    chosen = np.flatnonzero(np.isin(hashes_N, doubtful))
    uris = images.source.image_uris.take(pa.array(layout.places[chosen]))
    codes = uris.dictionary_encode().indices.to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    later = np.flatnonzero(first[inverse] != np.arange(len(codes)))
    own, other = (
        images.events.ids.take(pa.array(layout.events_of[chosen[places]])).cast(pa.large_string())
        for places in (later, first[inverse][later])
    )
    details = pc.binary_join_element_wise(other, own, pa.scalar(", ", pa.large_string()))
    return Findings().listed("images_of_several_events", uris.take(pa.array(later)), details)


def _shown(times: pa.Array, places: npt.NDArray[np.int64]) -> pa.Array:
    seconds = times.take(pa.array(places)).cast(pa.timestamp("s"), safe=False)
    return pc.strftime(seconds, "%Y-%m-%d %H:%M:%S")


def _day(date: str) -> int:
    return int(np.datetime64(date, "D").astype(np.int64))


def _jumps_back(
    uris: pa.Array, micros: npt.NDArray[np.int64], cameras: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Neighbours of which the later is more than a day before the other: places of both."""
    order = np.argsort(cameras, kind="stable")
    order = order[cameras[order] >= 0]
    if not _is_by_name(uris, cameras, order):  # most sources are, and a sort takes its time
        names = uris.take(pa.array(order))
        rows = {"camera": cameras[order], "length": pc.binary_length(names), "name": names}
        keys = [(name, "ascending") for name in rows]
        order = order[pc.sort_indices(pa.table(rows), sort_keys=keys).to_numpy()]
    before, later = order[:-1], order[1:]
    jumps = (cameras[later] == cameras[before]) & (micros[later] < micros[before] - _DAY_US)
    return before[jumps], later[jumps]


def _is_by_name(
    uris: pa.Array, cameras: npt.NDArray[np.int32], order: npt.NDArray[np.int64]
) -> bool:
    """Whether the images of each camera are ordered by the length of their names, then by name."""
    before, later = order[:-1], order[1:]
    same = cameras[before] == cameras[later]
    before, later = before[same], later[same]
    are_neighbours = later == before + 1  # most are, and no name of these need be copied
    if not _rise(uris[:-1], uris[1:])[before[are_neighbours]].all():
        return False
    pairs = (uris.take(pa.array(rows[~are_neighbours])) for rows in (before, later))
    return bool(_rise(*pairs).all())


def _rise(before: pa.Array, later: pa.Array) -> npt.NDArray[np.bool_]:
    """Whether each later name is longer than the one before, or as long and not smaller."""
    n_before, n_later = pc.binary_length(before), pc.binary_length(later)
    is_equal = pc.and_(pc.equal(n_later, n_before), pc.greater_equal(later, before))
    rises = pc.or_(pc.greater(n_later, n_before), is_equal)
    result: npt.NDArray[np.bool_] = rises.to_numpy(zero_copy_only=False)
    return result


def _events_of_classes(lists: pa.Array, head: str) -> dict[str, int]:
    """Class -> number of capture events with an observation of it."""
    encoded = labels_of(pc.list_flatten(lists), head).dictionary_encode()
    if pc.max(pc.list_value_length(lists)).as_py() == 1:  # every observation is another event's
        counts = pc.value_counts(encoded.indices.drop_null()).to_pylist()
        names = encoded.dictionary.to_pylist()
        return {names[row["values"]]: row["counts"] for row in counts}
    events = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    valid = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
    n_classes = max(1, len(encoded.dictionary))
    codes = encoded.indices.fill_null(0).to_numpy().astype(np.int64)
    keys = np.sort(events[valid] * n_classes + codes[valid])
    once = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    counts = np.bincount(once % n_classes, minlength=len(encoded.dictionary)).tolist()
    return dict(zip(encoded.dictionary.to_pylist(), counts, strict=False))


def _counts(labels: pa.Array | pa.ChunkedArray) -> list[LabelCount]:
    counted = [(row["values"], row["counts"]) for row in pc.value_counts(labels).to_pylist()]
    counted.sort(key=lambda item: (-item[1], item[0] is None, item[0] or ""))
    return [LabelCount(label, count, count / len(labels)) for label, count in counted]
