import numpy as np
import pyarrow as pa

from ctc_ray.inventory.events.source_rows import SourceRows


def rows(observation_rows):
    uris = pa.array(["a", "b", "c"])
    return SourceRows(uris, image_rows=None, image_uris=uris, observation_rows=observation_rows)


def test_without_observation_rows_every_row_is_an_observation():
    assert rows(None).rows_of_observations.tolist() == [0, 1, 2]
    assert rows(np.array([1, 1])).rows_of_observations.tolist() == [1, 1]
