"""Blank frames of a capture event that is not blank: an animal seldom is in every frame."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Bools = npt.NDArray[np.bool_]


def blanks_beside_labels(
    events_M: npt.NDArray[np.int64], labels: pa.Array, is_blank: Bools
) -> Bools:
    """Which observations say blank in an event of which another has a label that is not blank.

    Args:
        events_M: number of each observation's event, from 0.
        labels: of each observation; null is missing, and says nothing.
    """
    if len(events_M) == 0:
        return np.zeros(0, bool)
    labelled = np.asarray(pc.is_valid(labels).to_numpy(zero_copy_only=False)) & ~is_blank
    has_label_E = np.zeros(events_M.max() + 1, bool)
    has_label_E[events_M[labelled]] = True
    return np.asarray(is_blank & has_label_E[events_M])
