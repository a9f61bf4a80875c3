"""Row groups of many Parquet files, read by several threads, each by one request."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from ctc_ray.errors import SchemaError
from ctc_ray.files import parquet, storage
from ctc_ray.files.object_store import ObjectFile

FOOTER_BYTES = 128 << 20
"""Memory for footers: one of 19 columns and 1,000 images in 8 row groups takes 35 kB."""

_IN_MEMORY = 2  # bytes per byte of the footer in the file, as measured


@dataclass(frozen=True)
class _Known:
    """What the next opening of an object need not ask for."""

    size: int
    footer: pq.FileMetaData

    @property
    def n_bytes(self) -> int:
        n_bytes: int = _IN_MEMORY * self.footer.serialized_size
        return n_bytes


class RowGroupReader:
    """Reads row groups of Parquet files; threads may share it.

    A row group of an object is one request, because the footers of the objects read last are kept;
    the first one of an object needs another request for the footer. A file must not change while a
    reader knows its footer. Local files are opened each time.
    """

    def __init__(self, footer_bytes: int = FOOTER_BYTES) -> None:
        """Nothing is read yet.

        Args:
            footer_bytes: memory for footers; those used longest ago are read again.
        """
        self._footer_bytes, self._n_bytes = footer_bytes, 0
        self._footers: OrderedDict[str, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, uri: str, index: int, columns: Sequence[str]) -> pa.Table:
        """Columns of a row group.

        Args:
            index: number of the row group in its file, from 0.

        Raises:
            FileNotFoundError: there is no such file.
            ConnectionError: the store or the network disk does not answer, after many attempts.
            SchemaError: the file is damaged, is no Parquet file, or lacks a column or row group.
        """
        if storage.is_remote(uri):
            return self._read_object(uri, index, columns)
        return storage.read_patiently(uri, lambda: _read_local(uri, index, columns))

    def _read_object(self, uri: str, index: int, columns: Sequence[str]) -> pa.Table:
        known = self._known(uri)
        size, footer = (None, None) if known is None else (known.size, known.footer)
        object_file = storage.operation("open", uri, lambda: ObjectFile(uri, size))
        source = pa.PythonFile(object_file, mode="r")
        with parquet.open_parquet(uri, source=source, metadata=footer) as file:
            start, stop = _extent(file, uri, index, columns)
            if not 0 <= start < stop <= object_file.size:
                raise SchemaError(f"{uri}: damaged: row group {index} is not inside the file")
            storage.operation("read", uri, lambda: object_file.hold(start, stop - start))
            rows = parquet.read_row_group(file, uri, index, list(columns))
            if known is None:
                self._keep(uri, _Known(object_file.size, file.metadata))
            return rows

    def _known(self, uri: str) -> _Known | None:
        with self._lock:
            if uri in self._footers:
                self._footers.move_to_end(uri)
            return self._footers.get(uri)

    def _keep(self, uri: str, known: _Known) -> None:
        with self._lock:
            if uri not in self._footers:
                self._footers[uri] = known
                self._n_bytes += known.n_bytes
            while self._n_bytes > self._footer_bytes:
                _, forgotten = self._footers.popitem(last=False)
                self._n_bytes -= forgotten.n_bytes


def _read_local(uri: str, index: int, columns: Sequence[str]) -> pa.Table:
    with parquet.open_parquet(uri) as file:
        _require(file, uri, index, columns)
        return parquet.read_row_group(file, uri, index, list(columns))


def _require(file: pq.ParquetFile, uri: str, index: int, columns: Sequence[str]) -> None:
    """Raise a SchemaError if a column or the row group is missing."""
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise SchemaError(f"{uri}: column {missing[0]!r} not found")
    if index >= file.num_row_groups:
        raise SchemaError(f"{uri}: row group {index} not found; it has {file.num_row_groups}")


def _extent(file: pq.ParquetFile, uri: str, index: int, columns: Sequence[str]) -> tuple[int, int]:
    """First byte of the first of the columns in a row group, and the end of the last of them.

    What lies between them is read, too: in a shard the metadata, some percent of the images.
    """
    _require(file, uri, index, columns)
    group = file.metadata.row_group(index)
    chunks = [group.column(k) for k in range(group.num_columns)]
    own = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
    starts = [
        min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
        for chunk in own
    ]
    stops = [start + chunk.total_compressed_size for start, chunk in zip(starts, own, strict=True)]
    return min(starts), max(stops)
