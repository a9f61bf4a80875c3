"""Ids of images: hashes of whole columns.

The hash is pandas' (SipHash-2-4, 64 bits, with a fixed key); hashlib takes three times as long,
because it is called once per value.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

_ROWS_AT_ONCE = 1 << 19  # as Python strings, so not all at once
_HEX_DIGITS = 32

Hashes = npt.NDArray[np.uint64]


def hash_text(values: pa.Array) -> Hashes:
    """A 64-bit hash of each string; the same on every machine."""
    hashes = np.empty(len(values), np.uint64)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        part = values.slice(start, _ROWS_AT_ONCE).to_numpy(zero_copy_only=False)
        hashes[start : start + len(part)] = pd.util.hash_array(part, categorize=False)
    return hashes


def image_ids(event_hashes: Hashes, uri_hashes: Hashes) -> pa.Array:
    """32 hex digits per image: the hash of its event's id, then that of its URI."""
    both = np.stack([event_hashes, uri_hashes], axis=1).astype(">u8").tobytes()
    offsets = np.arange(len(event_hashes) + 1, dtype=np.int32) * _HEX_DIGITS
    text = pa.py_buffer(both.hex().encode())
    return pa.StringArray.from_buffers(len(event_hashes), pa.py_buffer(offsets), text)


def repeated(
    events: npt.NDArray[np.int32], uris: pa.Array, uri_hashes: Hashes
) -> npt.NDArray[np.int64]:
    """The places of the images that their event has named before; ascending.

    Args:
        events: number of each image's event.
    """
    keys = uri_hashes ^ (events.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    in_order = np.sort(keys)
    doubtful = in_order[1:][in_order[1:] == in_order[:-1]]
    if len(doubtful) == 0:
        return np.zeros(0, np.int64)
    places = np.flatnonzero(np.isin(keys, doubtful))
    seen: set[tuple[int, str]] = set()
    named = zip(events[places].tolist(), uris.take(pa.array(places)).to_pylist(), strict=True)
    again = [_is_seen(name, seen) for name in named]
    result: npt.NDArray[np.int64] = places[np.array(again, bool)]
    return result


def _is_seen(name: tuple[int, str], seen: set[tuple[int, str]]) -> bool:
    was_seen = name in seen
    seen.add(name)
    return was_seen
