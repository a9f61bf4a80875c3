"""A blank frame does not make an event blank if another frame has a label."""

import numpy as np
import pyarrow as pa

from ctc_ray.inventory.events.assemble import TEXT
from ctc_ray.inventory.sources.blanks import blanks_beside_labels


def test_only_blanks_of_events_with_a_label_are_found():
    events = np.array([0, 0, 1, 1, 2, 2])
    labels = pa.array(["empty", "fox", "empty", None, "empty", "empty"], TEXT)
    is_blank = np.array([label == "empty" for label in labels.to_pylist()])

    found = blanks_beside_labels(events, labels, is_blank)

    assert found.tolist() == [True, False, False, False, False, False]


def test_no_observation_is_no_blank():
    assert (
        len(blanks_beside_labels(np.zeros(0, np.int64), pa.array([], TEXT), np.zeros(0, bool))) == 0
    )
