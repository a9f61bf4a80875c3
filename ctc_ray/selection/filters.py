"""Which capture events are kept: by label, by missing labels, by how rare their class is."""

import difflib
import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize, factorize_to_list, first_rows
from ctc_ray.errors import ConfigError
from ctc_ray.observations import head_names, labels_of
from ctc_ray.schemas import label_column

logger = logging.getLogger(__name__)

Bools = npt.NDArray[np.bool_]


def has_label(table: pa.Table, conditions: Sequence[str], *, setting: str) -> Bools:
    """Whether each row's event has one of these labels (head=class) in any observation.

    A class that occurs nowhere is a warning that names those like it.

    Args:
        setting: the setting's name in messages.

    Raises:
        ConfigError: there is no such head.
    """
    known = head_names(table.schema.field("observations").type)
    found = np.zeros(table.num_rows, bool)
    if not conditions:
        return found
    flat = pc.list_flatten(table["observations"])
    lengths = pc.list_value_length(table["observations"]).fill_null(0).to_numpy()
    parents = np.repeat(np.arange(table.num_rows), lengths)
    for condition in conditions:
        head, _, name = condition.partition("=")
        if head not in known:
            raise ConfigError(
                f"{setting}: head {head!r} not found; heads are {', '.join(known) or 'none'}"
            )
        labels = labels_of(flat, head)
        matches = pc.equal(labels, name).fill_null(False).to_numpy()
        found[parents[matches]] = True
        if not matches.any():
            classes = [label for label in pc.unique(labels).to_pylist() if label is not None]
            near = ", ".join(difflib.get_close_matches(name, classes, n=3)) or "none is like it"
            logger.warning("%s: %s occurs nowhere; near: %s", setting, condition, near)
    return found


def all_labelled(rows: pa.Table, heads: Sequence[str]) -> Bools:
    """Whether each row has a label of every one of these heads."""
    result = np.ones(rows.num_rows, bool)
    for head in heads:
        result &= pc.is_valid(rows[label_column(head)]).to_numpy()
    return result


def in_frequent_classes(
    rows: pa.Table, heads: Sequence[str], min_events: int, *, min_images: int = 0
) -> Bools:
    """Whether each row's event is only of classes that have enough events, and enough images.

    It is repeated until it holds: an event left out for one head may make a class of another rare.
    Missing labels are no class.
    """
    event_N, event_ids = factorize(rows["capture_event_id"], sort=True)
    first_E = first_rows(event_N, len(event_ids))
    n_images_E = np.bincount(event_N, minlength=len(event_ids))
    code_HE = [factorize_to_list(rows[label_column(head)])[0][first_E] for head in heads]
    stays_E = np.ones(len(event_ids), bool)
    n_before = -1
    while n_before != (n_before := int(stays_E.sum())):
        for code_E in code_HE:
            counted, n_classes = stays_E & (code_E >= 0), code_E.max(initial=0) + 1
            events_K = np.bincount(code_E[counted], minlength=n_classes)
            images_K = np.bincount(code_E[counted], n_images_E[counted], minlength=n_classes)
            is_enough_K = (events_K >= min_events) & (images_K >= min_images)
            stays_E &= (code_E < 0) | is_enough_K[code_E]
    result: Bools = stays_E[event_N]
    return result
