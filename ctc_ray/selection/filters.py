"""Filters of capture events: by label, by missing labels, by the size of their classes."""

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


def has_label(
    table: pa.Table, conditions: Sequence[str], *, setting: str, allow_unmatched: bool = True
) -> Bools:
    """Whether any observation of each row's event has one of the labels.

    Args:
        conditions: each as head=class.
        setting: the name of the setting, for messages.
        allow_unmatched: a class that does not occur is a warning, not an error.

    Raises:
        ConfigError: the inventory does not have a head of the conditions, or a class does not occur
            and must; similar classes are listed.
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
            similar = ", ".join(difflib.get_close_matches(name, classes, n=3)) or "none"
            message = f"{setting}: {condition} does not occur; similar classes: {similar}"
            if not allow_unmatched:
                raise ConfigError(f"{message} (--filter.allow-unmatched goes on)")
            logger.warning("%s", message)
    return found


def all_labelled(rows: pa.Table, heads: Sequence[str]) -> Bools:
    """Whether each row has a label of every head."""
    result = np.ones(rows.num_rows, bool)
    for head in heads:
        result &= pc.is_valid(rows[label_column(head)]).to_numpy()
    return result


def in_frequent_classes(
    rows: pa.Table, heads: Sequence[str], min_events: int, *, min_images: int = 0
) -> Bools:
    """Whether each row's event has only labels of classes with enough events and enough images.

    Leaving out an event for one head may make a class of another head too small, so the rule is
    repeated until it holds for all events that are kept. A missing label is not a class.

    Args:
        min_events: capture events that a class must have.
        min_images: images that a class must have.
    """
    event_N, event_ids = factorize(rows["capture_event_id"], sort=True)
    first_E = first_rows(event_N, len(event_ids))
    n_images_E = np.bincount(event_N, minlength=len(event_ids))
    code_HE = [factorize_to_list(rows[label_column(head)])[0][first_E] for head in heads]
    is_kept_E = np.ones(len(event_ids), bool)
    n_before = -1
    while n_before != (n_before := int(is_kept_E.sum())):
        for code_E in code_HE:
            counted, n_classes = is_kept_E & (code_E >= 0), code_E.max(initial=0) + 1
            events_K = np.bincount(code_E[counted], minlength=n_classes)
            images_K = np.bincount(code_E[counted], n_images_E[counted], minlength=n_classes)
            is_enough_K = (events_K >= min_events) & (images_K >= min_images)
            is_kept_E &= (code_E < 0) | is_enough_K[code_E]
    result: Bools = is_kept_E[event_N]
    return result
