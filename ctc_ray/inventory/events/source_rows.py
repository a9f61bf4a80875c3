"""What a reader makes of its source: columns, row by row, before events are united."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SourceRows:
    """The columns of a source. Rows with the same event id, neighbours or not, are one event."""

    event_ids: pa.Array  # these and the other columns of text: plain, or dictionary-encoded
    image_rows: Ints | None
    """Source row of each image, ascending; the images of a row in the order of the source. None:
    every row is one image."""
    image_uris: pa.Array
    observation_rows: Ints | None
    """Source row of each observation, ascending. None: every row is one observation."""
    labels: Mapping[str, pa.Array] = field(default_factory=dict)
    """Head -> label of each observation; null is missing."""
    location_ids: pa.Array | None = None
    deployment_ids: pa.Array | None = None
    captured_at: pa.Array | None = None
    """Of each image, timestamp[us], the camera's local time; null is not known."""
    boxes: pa.Array | None = None
    """Of each image, list<schemas.BOX>; null: nobody has looked for any."""
    meta: Mapping[str, pa.Array] = field(default_factory=dict)
    """Metadata field -> value of each row; null is missing."""

    @property
    def rows_of_observations(self) -> Ints:
        """Source row of each observation."""
        if self.observation_rows is None:
            return np.arange(len(self.event_ids))
        return self.observation_rows
