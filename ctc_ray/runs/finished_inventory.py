"""The rows of a finished inventory: by their numbers, where they are needed, or part by part."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.errors import IncompleteDataError
from ctc_ray.files import parquet
from ctc_ray.runs.manifest import manifest_fingerprint, read_manifest

_FOOTERS_AT_ONCE = 8

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class InventoryRows:
    """The files of an inventory, and which rows each of them holds."""

    inventory_uri: str
    fingerprint: str
    """SHA-256 of the manifest: row numbers are valid for this inventory only."""
    part_uris: tuple[str, ...]
    part_ends: tuple[int, ...]
    """Exclusive end row of each part (cumulative row count)."""

    @property
    def n_rows(self) -> int:
        """Images of the inventory."""
        return self.part_ends[-1] if self.part_ends else 0

    def read_all(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of all rows in their order, a row group at a time."""
        for uri in self.part_uris:
            with parquet.open_parquet(uri) as file:
                for group in range(file.num_row_groups):
                    yield parquet.read_row_group(file, uri, group, list(columns))

    def require_unchanged(self) -> None:
        """Check that the inventory is still the one that was planned with.

        Raises:
            IncompleteDataError: it was written anew, or is being written.
        """
        try:
            is_same = manifest_fingerprint(self.inventory_uri) == self.fingerprint
        except FileNotFoundError:
            is_same = False
        if not is_same:
            read_manifest(self.inventory_uri, "inventory")  # raises if none is there
            raise IncompleteDataError(
                f"{self.inventory_uri}: the inventory has changed since this command began; "
                "run it again with another --output-uri, or with --overwrite"
            )

    def read(self, numbers: Ints, columns: Sequence[str]) -> pa.Table:
        """These columns of the rows with these numbers, in their order; no number is there twice.

        A few row groups are read at a time.
        """
        order = np.argsort(numbers)
        rows = self._read_ascending(numbers[order], columns)
        if (order[1:] > order[:-1]).all():
            return rows
        at = np.empty_like(order)
        at[order] = np.arange(len(order))
        return rows.take(pa.array(at))

    def _read_ascending(self, numbers: Ints, columns: Sequence[str]) -> pa.Table:
        found = []
        part_of = np.searchsorted(self.part_ends, numbers, side="right")
        for part in np.unique(part_of):
            first = self.part_ends[part - 1] if part else 0
            uri = self.part_uris[part]
            found += _rows_of_part(uri, numbers[part_of == part] - first, list(columns))
        return pa.concat_tables(found)


def find_rows(inventory_uri: str) -> InventoryRows:
    """The files of a finished inventory; reads their footers."""
    uris = parquet.list_tables(inventory_uri)
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        n_rows = list(pool.map(_n_rows, uris))
    fingerprint = manifest_fingerprint(inventory_uri)
    return InventoryRows(inventory_uri, fingerprint, tuple(uris), tuple(np.cumsum(n_rows).tolist()))


def _n_rows(uri: str) -> int:
    with parquet.open_parquet(uri) as file:
        return int(file.metadata.num_rows)


def _rows_of_part(uri: str, numbers: Ints, columns: list[str]) -> list[pa.Table]:
    with parquet.open_parquet(uri) as file:
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        group_of = np.searchsorted(ends, numbers, side="right")
        found = []
        for group in np.unique(group_of):
            own = numbers[group_of == group] - (ends[group] - sizes[group])
            rows = parquet.read_row_group(file, uri, int(group), columns)
            found.append(rows.take(pa.array(own)))
    return found
