"""The columns that a reader makes of its source, before the rows of an event are merged."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SourceRows:
    """The columns of a source. Rows with equal event ids, neighbours or not, are one event.

    Text columns are plain or dictionary-encoded.
    """

    event_ids: pa.Array
    """Event id of each row."""
    image_rows: Ints | None
    """Source row of each image, ascending; the images of a row keep the order of the source. None:
    every row is one image."""
    image_uris: pa.Array
    """URI of each image."""
    observation_rows: Ints | None
    """Source row of each observation, ascending. None: every row is one observation."""
    labels: Mapping[str, pa.Array] = field(default_factory=dict)
    """Head -> label of each observation; null is missing."""
    location_ids: pa.Array | None = None
    """Location of each row; null is unknown."""
    deployment_ids: pa.Array | None = None
    """Deployment of each row; null is unknown."""
    captured_at: pa.Array | None = None
    """Time of each image on the camera's clock, timestamp[us]; null is unknown."""
    boxes: pa.Array | None = None
    """Boxes of each image, list<schemas.BOX>; empty: none found, null: not searched for."""
    meta: Mapping[str, pa.Array] = field(default_factory=dict)
    """Metadata field -> value of each row; null is missing."""

    @property
    def rows_of_observations(self) -> Ints:
        """Source row of each observation."""
        if self.observation_rows is None:
            return np.arange(len(self.event_ids))
        return self.observation_rows
