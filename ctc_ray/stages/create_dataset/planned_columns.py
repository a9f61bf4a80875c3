"""The columns of an inventory by which a dataset is planned.

A plan of ten million images is numbers and labels; the tasks read the other columns themselves.
"""

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from ctc_ray.columns.factorize import as_dictionary, concat_dictionaries
from ctc_ray.columns.hashing import hash_text
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.files import parquet, storage
from ctc_ray.inventory.checks.labels import IMAGES_OF_SEVERAL_EVENTS
from ctc_ray.runs.manifest import Manifest
from ctc_ray.schemas import meta_column, meta_columns
from ctc_ray.splits.report import CONTENT_COLUMN, IMAGE_COLUMN

_PARTS_AT_ONCE = 4
_NUMBERED = ("capture_event_id", "location_id")


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
