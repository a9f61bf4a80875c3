"""The order in which capture events are laid into the units of a dataset: that of a hash.

An inventory is sorted, so neighbours are of one camera, one night and often one class. In the order
of a hash each row group is a random sample of the dataset: training that mixes a few row groups
mixes as well as a full shuffle. Neighbouring reads of an object store have different prefixes.

A task reads the columns of its rows from the inventory, by whole blocks. So that it never reads
more than a few of them, a large inventory is divided into pools; each pool holds every n-th block,
and has its own units.

E events, N rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.columns.factorize import factorize
from ctc_ray.columns.hashing import hash_text
from ctc_ray.files import storage

ROWS_PER_BLOCK = 1 << 16  # a row group of an inventory
BLOCKS_PER_POOL = 16  # a task reads them in .2 s, and needs 10 s for its thousand images
_HASH_BITS = 64
_ROWS_AT_ONCE = 1 << 20

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EventRows:
    """Capture events in some order, each a range of rows."""

    starts: Ints
    """The row of each event's first image."""
    lengths: Ints
    """Each event's number of images."""

    def where(self, is_chosen_E: npt.NDArray[np.bool_]) -> "EventRows":
        """Some of the events, in the same order."""
        return EventRows(self.starts[is_chosen_E], self.lengths[is_chosen_E])

    def rows(self) -> Iterator[Ints]:
        """The rows of all events, about a million at a time."""
        ends_E = np.cumsum(self.lengths)
        start = 0
        while start < len(ends_E):
            done = ends_E[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends_E, done + _ROWS_AT_ONCE)))
            first, n = self.starts[start:stop], self.lengths[start:stop]
            rows = np.repeat(first - (ends_E[start:stop] - n - done), n)
            rows += np.arange(len(rows))
            yield rows
            start = stop


def by_hash(event_ids: pa.Array | pa.ChunkedArray, row_numbers: Ints) -> EventRows:
    """The events in the order of the units: pool by pool, then by the hash of their ids.

    The order does not depend on that of the rows while there is one pool, which is up to a million
    rows of the inventory.

    Args:
        event_ids: of each row; rows of an event are neighbours.
        row_numbers: index in the inventory, ascending.
    """
    starts = run_starts(event_ids)
    if len(starts) == 0:
        return EventRows(starts, starts)
    codes_N, names = factorize(event_ids)
    hashes_E = hash_text(names)[codes_N[starts]]
    block_E = row_numbers[starts] // ROWS_PER_BLOCK
    n_pools = -(-(int(block_E[-1]) + 1) // BLOCKS_PER_POOL)
    pool_E = (block_E % n_pools).astype(np.uint64)
    order_E = _order(pool_E, hashes_E, n_pools=n_pools)
    return EventRows(starts[order_E], np.diff(starts, append=len(row_numbers))[order_E])


def _order(
    pool_E: npt.NDArray[np.uint64], hashes_E: npt.NDArray[np.uint64], *, n_pools: int
) -> Ints:
    """Indices of the events, by pool, hash and index.

    Pool, the first bits of the hash and the index are one number: to sort numbers takes half the
    time of sorting indices by them. Hashes of 36 bits tell 10 million events apart, but for a few.
    """
    index_bits = np.uint64((len(hashes_E) - 1).bit_length())
    pool_bits = np.uint64((n_pools - 1).bit_length())
    spare = np.uint64(_HASH_BITS) - index_bits
    keys = pool_E << (spare - pool_bits)
    keys |= hashes_E >> (index_bits + pool_bits)
    keys <<= index_bits
    keys |= np.arange(len(keys), dtype=np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << index_bits) - np.uint64(1)
    return keys.astype(np.int64)


def plans_folder(output_uri: str, plans: str, split_folders: Sequence[str]) -> tuple[str, bool]:
    """The folder for the plan files, and whether units are in the order of a hash.

    Work that an earlier version has begun goes on in its own order, that of the inventory: units of
    both orders would have some events twice and others never.

    Args:
        plans: folder below the output folder, where earlier versions have their plan files.
        split_folders: the folders of the splits, e.g. `split=train`.
    """
    begun = any(
        storage.is_folder(storage.join(output_uri, plans, folder)) for folder in split_folders
    )
    return (plans, False) if begun else (storage.join(plans, "by-hash"), True)
