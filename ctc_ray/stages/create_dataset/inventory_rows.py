"""The rows of a finished inventory by their number, read where they are needed.

A helper of `ctc create-dataset`: a plan of ten million images is numbers and labels; the tasks read
the other columns themselves.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.columns.factorize import as_dictionary, concat_dictionaries
from ctc_ray.columns.hashing import hash_text
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import IncompleteDataError
from ctc_ray.files import parquet, storage
from ctc_ray.inventory.checks.labels import IMAGES_OF_SEVERAL_EVENTS
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.schemas import meta_column, meta_columns
from ctc_ray.splits.report import CONTENT_COLUMN, IMAGE_COLUMN

_FOOTERS_AT_ONCE = 8
_PARTS_AT_ONCE = 4
_NUMBERED = ("capture_event_id", "location_id")

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


def read_columns(config: CreateDatasetConfig, inventory: Manifest | None = None) -> pa.Table:
    """The columns of the inventory by which the plan is made.

    Ten million rows with all columns would be gigabytes. The images are there, as hashes of their
    URIs, only if they may repeat: with `append`, or if the inventory found that some belong to
    several events.
    """
    found = {} if inventory is None else inventory.findings
    repeats = config.append or IMAGES_OF_SEVERAL_EVENTS in found
    wanted = {"capture_event_id", "location_id", "observations", CONTENT_COLUMN}
    by = config.split.by
    wanted |= {"captured_at"} if by == "time" else set()
    wanted |= {meta_column(by.partition(":")[2])} if by.startswith("meta:") else set()
    wanted |= {"observation_counts"} if config.observations == "most-frequent" else set()

    def read(uri: str) -> pa.Table:
        with parquet.open_parquet(uri, read_dictionary=("location_id",)) as file:
            names = [name for name in file.schema_arrow.names if name in wanted]
            if by.startswith("meta:") and meta_column(by.partition(":")[2]) not in names:
                names += meta_columns(file.schema_arrow)  # for the message that names them
            names += ["image_uri"] if repeats else []
            table = storage.operation("read", uri, lambda: file.read(columns=names))
        return _numbered(with_image_hashes(table) if repeats else table)

    with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
        parts = list(pool.map(read, parquet.list_tables(config.inventory_uri)))
    table = pa.concat_tables(part.drop_columns(list(_NUMBERED)) for part in parts)
    whole = {
        name: concat_dictionaries([part[name].chunk(0) for part in parts]) for name in _NUMBERED
    }
    return pa.table({**{name: table[name] for name in table.column_names}, **whole})


def with_image_hashes(table: pa.Table) -> pa.Table:
    """The table with a hash of 8 bytes for the URI of each image."""
    hashes = [hash_text(chunk) for chunk in table["image_uri"].chunks]
    column = pa.chunked_array([pa.array(one) for one in hashes], pa.uint64())
    return table.drop_columns("image_uri").append_column(IMAGE_COLUMN, column)


def _numbered(table: pa.Table) -> pa.Table:
    """The table with events and locations as numbers: every step counts by them."""
    for name in _NUMBERED:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, as_dictionary(table[name]))
    return table
