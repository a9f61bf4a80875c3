"""Fingerprints of tables: equal for equal values, however they are cut into chunks."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ROWS_AT_ONCE = 1 << 16
_OF_NULL = -1  # a length that no text has


def table_fingerprint(table: pa.Table) -> str:
    """SHA-256 of the names and values of a table's columns in their order, 64 hex digits.

    Every value counts as its text, and one that is missing is not an empty one. Besides the table,
    65,536 rows are in memory.
    """
    digest = hashlib.sha256("\0".join(table.column_names).encode())
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        for column in table.slice(start, _ROWS_AT_ONCE).columns:
            text = column.cast(pa.large_string()).combine_chunks()
            lengths = pc.fill_null(pc.binary_length(text), _OF_NULL)
            digest.update(lengths.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
            digest.update(_bytes_of(pc.fill_null(text, "")))
    return digest.hexdigest()


def _bytes_of(text: pa.LargeStringArray) -> memoryview:
    _, offsets, content = text.buffers()
    if content is None:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int64)
    return memoryview(content)[bounds[text.offset] : bounds[text.offset + len(text)]]
