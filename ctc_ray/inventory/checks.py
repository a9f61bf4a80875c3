"""What an inventory holds, counted, and what in it is likely to be a mistake."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import LabelError
from ctc_ray.inventory.findings import Findings

_FIRST_YEAR = 2000
_DAY_US = 86_400_000_000
_DIGITS = 20  # numbers of file names are compared as numbers up to this length


@dataclass(frozen=True)
class LabelCount:
    """How often a label was given."""

    label: str | None
    """None: not labelled."""
    count: int
    """Observations; those of an event are counted once, however many images it has."""
    share: float
    """Of all observations, in [0, 1]."""


def label_statistics(table: pa.Table, heads: Sequence[str]) -> dict[str, list[LabelCount]]:
    """The labels of each head, most frequent first, then by label, the missing one last.

    Raises:
        LabelError: there is no such head.
    """
    events = table.filter(pc.equal(table["image_index"], 0))
    observations = pc.list_flatten(events["observations"])
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


def check_labels(table: pa.Table, heads: Sequence[str], *, rare_class_events: int) -> Findings:
    """Findings about the labels of each head.

    - `labels_differ_in_case_or_spaces`: classes that are perhaps one, "Zebra" and "zebra "
    - `rare_classes`: classes of fewer than `rare_class_events` capture events
    """
    findings = Findings()
    for head in heads:
        counts = _events_of_classes(table, head)
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


def check_clocks(table: pa.Table) -> Findings:
    """`clock_resets`: images whose time shows that the camera's clock was set back, or never set.

    1. The year is before 2000, or the day is 2000-01-01: where clocks begin.
    2. Among the images of one deployment (of its location; of the location alone where there is no
       deployment), in the order of their file names, numbers in them as numbers, the time is more
       than a day before that of the image before it. Only the first image behind the jump is
       listed. Images of which neither is known are left out here: they may be of many cameras.
    """
    dated = table.select(["image_uri", "location_id", "deployment_id", "captured_at"])
    dated = dated.filter(dated["captured_at"].is_valid()).combine_chunks()
    if dated.num_rows == 0:
        return Findings()
    times = dated["captured_at"].combine_chunks()
    text = pc.strftime(times.cast(pa.timestamp("s"), safe=False), "%Y-%m-%d %H:%M:%S")
    micros = times.cast(pa.int64()).to_numpy()
    days = micros // _DAY_US
    unset = (days < _day(f"{_FIRST_YEAR}-01-01")) | (days == _day("2000-01-01"))
    later, before = _jumps_back(dated, micros)
    chosen = ~unset[later]  # one finding per image
    details = pc.binary_join_element_wise(
        text.take(pa.array(later[chosen])), text.take(pa.array(before[chosen])), " after "
    )
    uris = dated["image_uri"]
    never_set = pa.array(np.flatnonzero(unset))
    findings = Findings().listed("clock_resets", uris.take(never_set), text.take(never_set))
    return findings.listed("clock_resets", uris.take(pa.array(later[chosen])), details)


def _day(date: str) -> int:
    return int(np.datetime64(date, "D").astype(np.int64))


def _jumps_back(
    dated: pa.Table, micros: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The places whose time is more than a day before the one before, and the places of those."""
    cameras = pc.binary_join_element_wise(
        pc.fill_null(dated["location_id"], "\0"), pc.fill_null(dated["deployment_id"], "\0"), "\0"
    ).combine_chunks()
    codes = cameras.dictionary_encode().indices.to_numpy().astype(np.int64)
    known = pc.or_(dated["location_id"].is_valid(), dated["deployment_id"].is_valid())
    names = pa.table({"camera": codes, "name": _sortable(dated["image_uri"])})
    keys = [("camera", "ascending"), ("name", "ascending")]
    order = pc.sort_indices(names, sort_keys=keys).to_numpy().astype(np.int64)
    order = order[known.to_numpy()[order]]
    before, later = order[:-1], order[1:]
    jumps = (codes[later] == codes[before]) & (micros[later] < micros[before] - _DAY_US)
    return later[jumps], before[jumps]


def _sortable(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """The names with each number as long as any, so that 10 comes after 9."""
    padded = pc.replace_substring_regex(
        names.cast(pa.large_string()), r"(\d+)", "0" * _DIGITS + r"\1"
    )
    return pc.replace_substring_regex(padded, rf"\d*(\d{{{_DIGITS}}})", r"\1")


def _events_of_classes(table: pa.Table, head: str) -> dict[str, int]:
    """Class -> number of capture events with an observation of it."""
    lists = table.filter(pc.equal(table["image_index"], 0))["observations"].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # of no rows, or of more than one array holds
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    events = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    encoded = labels_of(pc.list_flatten(lists), head).dictionary_encode()
    valid = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
    n_classes = max(1, len(encoded.dictionary))
    codes = encoded.indices.fill_null(0).to_numpy().astype(np.int64)
    once = np.unique(events[valid] * n_classes + codes[valid])
    counts = np.bincount(once % n_classes, minlength=len(encoded.dictionary)).tolist()
    return dict(zip(encoded.dictionary.to_pylist(), counts, strict=False))


def _counts(labels: pa.Array | pa.ChunkedArray) -> list[LabelCount]:
    counted = [(row["values"], row["counts"]) for row in pc.value_counts(labels).to_pylist()]
    counted.sort(key=lambda item: (-item[1], item[0] is None, item[0] or ""))
    return [LabelCount(label, count, count / len(labels)) for label, count in counted]
