"""The files that `ctc aggregate` reads, predictions per image, and the units of work they make."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from ctc_ray.columns.event_runs import cut_at_starts
from ctc_ray.files import parquet, storage
from ctc_ray.runs.manifest import Manifest
from ctc_ray.schemas import (
    LABEL_PREFIX,
    label_column,
    labelled_heads,
    scored_schema,
    with_label_columns,
)
from ctc_ray.stages.predict.answer_files import IMAGES, list_parts

_FILES_AT_ONCE = 16  # of which only the footer, or a few columns, are read


@dataclass(frozen=True)
class ImageFiles:
    """The files of images of finished predictions, in the order of their numbers."""

    uris: tuple[str, ...]
    n_rows: tuple[int, ...]
    labelled: tuple[tuple[str, ...], ...]
    """Heads that each file has labels of: it may be older than the labels of others."""
    schema: pa.Schema
    """The columns that events are made of."""

    @classmethod
    def of(cls, predictions_uri: str, manifest: Manifest) -> "ImageFiles":
        """Those of a folder of predictions."""
        uris = [storage.join(predictions_uri, name) for name in list_parts(predictions_uri, IMAGES)]
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            footers = list(pool.map(partial(_footer, manifest.heads), uris))
        n_rows, labelled = zip(*footers, strict=True) if footers else ((), ())
        together = [head for head in manifest.heads if any(head in heads for heads in labelled)]
        schema = scored_schema(manifest.heads, manifest.meta, together)
        return cls(tuple(uris), n_rows, labelled, schema)

    def cut(self, images_per_unit: int) -> list["ImageFiles"]:
        """Neighbouring files with about so many images together; a file is never divided."""
        starts = np.cumsum([0, *self.n_rows])
        cuts = cut_at_starts(starts[:-1], int(starts[-1]), images_per_unit)
        bounds = np.searchsorted(starts, np.array(cuts, np.int64).reshape(-1, 2))
        return [
            ImageFiles(
                self.uris[start:stop],
                self.n_rows[start:stop],
                self.labelled[start:stop],
                self.schema,
            )
            for start, stop in bounds
        ]

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of all files; None: the columns that events are made of."""
        names = list(self.schema.names if columns is None else columns)
        return pa.concat_tables(
            _read(uri, heads, names) for uri, heads in zip(self.uris, self.labelled, strict=True)
        )

    def read_at_once(self, columns: Sequence[str]) -> pa.Table:
        """The rows of all files, several files at a time."""
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            names = list(columns)
            return pa.concat_tables(
                pool.map(lambda uri: parquet.read_table(uri, names, uses_threads=False), self.uris)
            )


def _read(uri: str, labelled: Sequence[str], names: Sequence[str]) -> pa.Table:
    """These columns of a file; labels that it has not are null."""
    heads = [n.removeprefix(LABEL_PREFIX) for n in names if n.startswith(LABEL_PREFIX)]
    missing = {label_column(head) for head in heads if head not in labelled}
    there = [name for name in names if name not in missing]
    rows = parquet.read_table(uri, there, uses_threads=False)
    return with_label_columns(rows, heads).select(names)


def _footer(heads: Sequence[str], uri: str) -> tuple[int, tuple[str, ...]]:
    """Rows of a file, and the heads that it has labels of."""
    with parquet.open_parquet(uri) as file:
        return file.metadata.num_rows, tuple(labelled_heads(file.schema_arrow, heads))
