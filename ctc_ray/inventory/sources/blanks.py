"""Blank frames of an event with an animal: an animal is seldom in every frame of an event."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_BLANK = ("empty", "blank")

Bools = npt.NDArray[np.bool_]


def blanks_beside_labels(
    events_M: npt.NDArray[np.int64], labels: pa.Array, is_blank: Bools
) -> Bools:
    """Which of M observations are blank although their event has a label that is not blank.

    Args:
        events_M: event index of each observation, from 0.
        labels: label of each observation; null is missing and does not count.
        is_blank: whether the label means blank.
    """
    if len(events_M) == 0:
        return np.zeros(0, bool)
    labelled = np.asarray(pc.is_valid(labels).to_numpy(zero_copy_only=False)) & ~is_blank
    has_label_E = np.zeros(events_M.max() + 1, bool)
    has_label_E[events_M[labelled]] = True
    return np.asarray(is_blank & has_label_E[events_M])


def are_named_blank(labels: pa.Array) -> Bools:
    """Which labels are the word empty or blank, in any case."""
    is_blank = pc.is_in(pc.utf8_lower(labels), value_set=pa.array(_BLANK, labels.type))
    return np.asarray(is_blank.to_numpy(zero_copy_only=False), bool)
