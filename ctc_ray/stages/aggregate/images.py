"""The files that `ctc aggregate` reads, predictions per image, and the units of work they make."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ctc_ray.columns.event_runs import cut_at_starts
from ctc_ray.files import parquet, storage
from ctc_ray.runs.manifest import Manifest
from ctc_ray.schemas import scored_schema
from ctc_ray.stages.predict.answer_files import IMAGES, list_parts

_FILES_AT_ONCE = 16  # of which only the footer, or a few columns, are read


@dataclass(frozen=True)
class ImageFiles:
    """The files of images of finished predictions, in the order of their numbers."""

    uris: tuple[str, ...]
    n_rows: tuple[int, ...]
    schema: pa.Schema
    """The columns that events are made of."""

    @classmethod
    def of(cls, predictions_uri: str, manifest: Manifest) -> "ImageFiles":
        """Those of a folder of predictions."""
        uris = [storage.join(predictions_uri, name) for name in list_parts(predictions_uri, IMAGES)]
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            n_rows = list(pool.map(_n_rows, uris))
        schema = scored_schema(manifest.heads, manifest.meta)
        return cls(tuple(uris), tuple(n_rows), schema)

    def cut(self, images_per_unit: int) -> list["ImageFiles"]:
        """Neighbouring files with about so many images together; a file is never divided."""
        starts = np.cumsum([0, *self.n_rows])
        cuts = cut_at_starts(starts[:-1], int(starts[-1]), images_per_unit)
        bounds = np.searchsorted(starts, np.array(cuts, np.int64).reshape(-1, 2))
        return [
            ImageFiles(self.uris[start:stop], self.n_rows[start:stop], self.schema)
            for start, stop in bounds
        ]

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of all files; None: the columns that events are made of."""
        names = list(self.schema.names if columns is None else columns)
        return pa.concat_tables(
            [parquet.read_table(uri, names, uses_threads=False) for uri in self.uris]
        )

    def read_at_once(self, columns: Sequence[str]) -> pa.Table:
        """The rows of all files, several files at a time."""
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            names = list(columns)
            return pa.concat_tables(
                pool.map(lambda uri: parquet.read_table(uri, names, uses_threads=False), self.uris)
            )


def _n_rows(uri: str) -> int:
    with parquet.open_parquet(uri) as file:
        n_rows: int = file.metadata.num_rows
    return n_rows
