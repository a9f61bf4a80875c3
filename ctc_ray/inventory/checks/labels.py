"""Counts of the labels of an inventory, and labels and images that are probably mistakes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.inventory.events.images import AssembledImages
from ctc_ray.inventory.events.observation_lists import observations_to_text
from ctc_ray.inventory.findings import Findings
from ctc_ray.observations import labels_of

_NUMBER = re.compile(r"[+-]?(\d+[.]?\d*|[.]\d+)([eE][+-]?\d+)?")
_LIKE_MISSING = frozenset(("nan", "na", "n/a", "#n/a", "null", "none", "nil", "<na>", "nat", "?"))


@dataclass(frozen=True)
class LabelCount:
    """The number of observations with a label."""

    label: str | None
    """None: not labelled."""
    count: int
    """Observations; one of an event counts once, however many images the event has."""
    share: float
    """Share of all observations, in [0, 1]."""


def count_labels(
    observations_E: pa.Array | pa.ChunkedArray, heads: Sequence[str]
) -> dict[str, list[LabelCount]]:
    """Head -> its labels, most frequent first, then by label, the missing one last.

    Args:
        observations_E: the list of observations of each event.

    Raises:
        LabelError: the observations do not have a head.
    """
    observations = pc.list_flatten(observations_E)
    return {head: _counts(labels_of(observations, head)) for head in heads}


def check_labels(
    observations_E: pa.Array, heads: Sequence[str], *, rare_class_events: int
) -> Findings:
    """Findings about the labels of each head.

    - `labels_differ_in_case_or_spaces`: classes that may be one class, like "Zebra" and "zebra "
    - `labels_of_one_number`: classes that are one number, like "1" and "1.0"
    - `labels_like_missing`: classes that other programs read as no label, like "nan" and "-1.0"
    - `rare_classes`: classes of fewer than `rare_class_events` capture events

    Args:
        observations_E: the list of observations of each event.

    Raises:
        LabelError: the observations do not have a head.
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
        findings = findings.plus(_numbers_and_blanks(head, counts))
        rare = [label for label, n in counts.items() if n < rare_class_events]
        rare.sort(key=lambda label: (counts[label], label))
        findings = findings.listed(
            "rare_classes",
            [f"{head}: {label}" for label in rare],
            [f"{counts[label]} event{'s' if counts[label] != 1 else ''}" for label in rare],
        )
    return findings


def _numbers_and_blanks(head: str, counts: Mapping[str, int]) -> Findings:
    """The classes of a head that are one number, or that look like no label."""
    numbers: dict[float, list[str]] = {}
    for label in sorted(counts):
        if _NUMBER.fullmatch(label.strip()):
            numbers.setdefault(float(label), []).append(label)
    groups = [labels for labels in numbers.values() if len(labels) > 1]
    blank = sorted(label for label in counts if _is_like_missing(label))
    return (
        Findings()
        .listed(
            "labels_of_one_number",
            [head] * len(groups),
            [", ".join(f"{label!r} {counts[label]:,} events" for label in g) for g in groups],
        )
        .listed(
            "labels_like_missing",
            [f"{head}: {label}" for label in blank],
            [f"{counts[label]:,} event{'s' if counts[label] != 1 else ''}" for label in blank],
        )
    )


def _is_like_missing(label: str) -> bool:
    text = label.strip().casefold()
    return text in _LIKE_MISSING or (bool(_NUMBER.fullmatch(text)) and float(text) == -1)


IMAGES_OF_SEVERAL_EVENTS = "images_of_several_events"


def check_images(images: AssembledImages) -> Findings:
    """Findings about images that belong to several events.

    - `images_of_several_events`: images that are also in an earlier event, with both event ids
    - `images_with_conflicting_labels`: images whose events have different observations
    """
    layout = images.layout
    if len(layout.repeated_uri_hashes) == 0:
        return Findings()
    hashes = images.uri_hashes[layout.source_indices]
    chosen = np.flatnonzero(np.isin(hashes, layout.repeated_uri_hashes))
    uris = images.source.image_uris.take(pa.array(layout.source_indices[chosen]))
    codes = uris.dictionary_encode().indices.to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    later = np.flatnonzero(first[inverse] != np.arange(len(codes)))
    own, other = (
        images.events.ids.take(pa.array(layout.event_indices[chosen[rows]])).cast(pa.large_string())
        for rows in (later, first[inverse][later])
    )
    details = pc.binary_join_element_wise(other, own, pa.scalar(", ", pa.large_string()))
    findings = Findings().listed(IMAGES_OF_SEVERAL_EVENTS, uris.take(pa.array(later)), details)
    lists = images.events.observations.take(pa.array(layout.event_indices[chosen]))
    is_labelled = np.array([_has_label(rows) for rows in lists.to_pylist()], bool)
    texts: dict[str, list[str]] = {}
    names, shown = uris.filter(pa.array(is_labelled)), lists.filter(pa.array(is_labelled))
    for uri, text in zip(names.to_pylist(), observations_to_text(shown).to_pylist(), strict=True):
        texts.setdefault(uri, []).append(text)
    distinct = {uri: list(dict.fromkeys(found)) for uri, found in texts.items()}
    conflicts = {uri: " / ".join(found) for uri, found in distinct.items() if len(found) > 1}
    return findings.listed(
        "images_with_conflicting_labels", list(conflicts), list(conflicts.values())
    )


def _has_label(observations: list[dict[str, str | None]] | None) -> bool:
    """Whether an event has a label of any head; one without contradicts no other."""
    return any(label is not None for row in observations or () for label in row.values())


def _events_of_classes(lists: pa.Array, head: str) -> dict[str, int]:
    """Class -> number of capture events that have the class in an observation."""
    encoded = labels_of(pc.list_flatten(lists), head).dictionary_encode()
    if pc.max(pc.list_value_length(lists)).as_py() == 1:  # every event has at most one observation
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
