"""A csv, one row per capture event or one per image, as an inventory."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.inventory.assembly import Inventory, SourceRows, assemble
from ctc_ray.inventory.csv_table import column_names, line_of_empty_cell, read_columns
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.times import parse_times

__all__ = ["CsvColumns", "column_names", "read_csv"]

_MISSING_LABEL = "-1"  # of the original


@dataclass(frozen=True)
class CsvColumns:
    """Which columns of a csv mean what.

    Raises:
        ConfigError: no image column, or a column is named twice in one role.
    """

    event_column: str
    image_columns: tuple[str, ...]
    """In the order in which the images were taken."""
    head_columns: tuple[str, ...] = ()
    meta_columns: tuple[str, ...] = ()
    location_column: str | None = None
    deployment_column: str | None = None
    captured_at_column: str | None = None

    def __post_init__(self) -> None:
        if not self.image_columns:
            raise ConfigError("image_columns names no column")
        for role in ("image_columns", "head_columns", "meta_columns"):
            twice = [name for name, n in Counter(getattr(self, role)).items() if n > 1]
            if twice:
                raise ConfigError(f"{role} names {twice[0]!r} twice")

    def names(self) -> list[str]:
        """The columns that are used, each once."""
        single = (self.location_column, self.deployment_column, self.captured_at_column)
        several = (*self.image_columns, *self.head_columns, *self.meta_columns)
        used = (self.event_column, *several, *(name for name in single if name is not None))
        return list(dict.fromkeys(used))


def read_csv(uri: str, columns: CsvColumns) -> Inventory:
    """The inventory of a csv: comma, semicolon or tab; double quotes, header line, UTF-8.

    Rows with the same event id are one event, neighbours or not. Cells are taken verbatim; an
    empty cell is missing, and so is a label -1. The csv is read whole or not at all.

    Raises:
        ConfigError: there is no such file.
        SchemaError: the file is empty or not UTF-8, lacks a column, has a row that is shorter or
            longer than the header or without an event id, or names no image.
    """
    table = read_columns(uri, columns.names())
    cells = {name: table[name].combine_chunks() for name in table.column_names}
    event_ids = cells[columns.event_column]
    if len(event_ids) == 0:
        raise SchemaError(f"{uri}: there is no row below the header")
    if pc.any(pc.equal(event_ids, "")).as_py():
        line = line_of_empty_cell(uri, columns.event_column)
        place = "a row" if line is None else f"line {line}"
        raise SchemaError(f"{uri}: {place} has no event id (column {columns.event_column!r})")
    image_rows, image_uris = _images([cells[name] for name in columns.image_columns])
    times, n_unreadable = _times(cells, columns.captured_at_column)
    rows = SourceRows(
        event_ids=event_ids,
        image_rows=image_rows,
        image_uris=image_uris,
        observation_rows=np.arange(len(event_ids)),
        labels={head: _null_if(cells[head], "", _MISSING_LABEL) for head in columns.head_columns},
        location_ids=_optional(cells, columns.location_column),
        deployment_ids=_optional(cells, columns.deployment_column),
        captured_at=None if times is None else times.take(pa.array(image_rows)),
        meta={name: _null_if(cells[name], "") for name in columns.meta_columns},
    )
    return assemble(rows, where=uri, findings=Findings().counted(unreadable_times=n_unreadable))


def _null_if(values: pa.Array, *missing: str) -> pa.Array:
    is_missing = pc.is_in(values, value_set=pa.array(missing, values.type))
    return pc.if_else(is_missing, pa.scalar(None, values.type), values)


def _optional(cells: dict[str, pa.Array], name: str | None) -> pa.Array | None:
    return None if name is None else _null_if(cells[name], "")


def _images(
    columns: Sequence[pa.Array],
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], pa.Array]:
    """The row of each image and its URI: row by row, within a row column by column."""
    n_rows = len(columns[0])
    cells = pa.concat_arrays(columns)
    order = np.arange(len(cells)).reshape(len(columns), n_rows).T.ravel()
    is_image = pc.not_equal(cells, "").to_numpy(zero_copy_only=False)
    places = order[is_image[order]]
    return places % n_rows, cells.take(pa.array(places))


def _times(cells: dict[str, pa.Array], name: str | None) -> tuple[pa.Array | None, int]:
    """The capture times, and how many cells are neither empty nor a time."""
    if name is None:
        return None, 0
    given = _null_if(cells[name], "")
    times = parse_times(given)
    return times, times.null_count - given.null_count
