"""A csv with one row per capture event or per image, as an inventory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize
from ctc_ray.columns.threads import run_both
from ctc_ray.errors import SchemaError
from ctc_ray.inventory.clock_corrections import NO_CORRECTIONS, ClockCorrections
from ctc_ray.inventory.events.assemble import TEXT, Inventory, SourceRows, assemble
from ctc_ray.inventory.events.source_rows import Ints
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.csv_columns import CsvColumns
from ctc_ray.inventory.sources.csv_table import column_names, line_of_empty_cell, read_columns
from ctc_ray.inventory.sources.gap_events import group_by_gap
from ctc_ray.inventory.sources.paths import portable_paths
from ctc_ray.inventory.sources.times import parse_times

__all__ = ["CsvColumns", "column_names", "read_csv"]

_MISSING_LABEL = "-1"  # of the original

Cells: TypeAlias = pa.Array | pa.ChunkedArray


def read_csv(
    uri: str,
    columns: CsvColumns,
    *,
    gap_s: float = 60,
    max_images: int | None = None,
    corrections: ClockCorrections = NO_CORRECTIONS,
) -> Inventory:
    """The inventory of a csv in UTF-8 with a header line; see `read_columns` for its form.

    Rows with equal event ids, neighbours or not, are one event. Cells are taken verbatim; an empty
    cell is missing, and so is a label -1. Either every row is read, or an error is raised.

    Args:
        gap_s: without event column: see `group_by_gap`; the images of a row stay together.
        max_images: without event column: see `group_by_gap`.
        corrections: applied to the times first.

    Raises:
        ConfigError: the file does not exist.
        SchemaError: the file is empty or not UTF-8, lacks a column, has no image, or has a row
            that is shorter or longer than the header or lacks an event id.
    """
    rows, found = _source_rows(
        uri, columns, gap_s=gap_s, max_images=max_images, corrections=corrections
    )
    inventory = assemble(rows, where=uri, findings=found)
    if columns.event_column is None:  # rows of one event are not merged rows: each is an image
        return replace(inventory, findings=inventory.findings.without("rows_merged"))
    return inventory


def _source_rows(
    uri: str,
    columns: CsvColumns,
    *,
    gap_s: float,
    max_images: int | None,
    corrections: ClockCorrections,
) -> tuple[SourceRows, Findings]:
    """The rows, and findings about paths and about times that cannot be read."""
    if columns.event_column is None:
        n_images = max(1, len(columns.image_columns))
        max_rows = None if max_images is None else max(1, max_images // n_images)
        table = _require_rows(uri, read_columns(uri, columns.names()))
        table, columns, label_columns = columns.joined(table)
        table, event_ids = _group_rows(
            table, columns, gap_s=gap_s, max_rows=max_rows, corrections=corrections
        )
        cells = {name: table[name].combine_chunks() for name in table.column_names}
    else:
        cells, event_ids, columns, label_columns = _cells(uri, columns, columns.event_column)
    (image_rows, image_uris), (times, unreadable) = run_both(
        lambda: _images([cells[name] for name in columns.image_columns]),
        lambda: _times(cells, columns),
    )
    image_uris, found = portable_paths(image_uris, where=uri, strip_prefix=columns.strip_prefix)
    times, corrected = _corrected(times, cells, columns, corrections)
    if times is not None and image_rows is not None:
        times = times.take(pa.array(image_rows))
    rows = SourceRows(
        event_ids=event_ids,
        image_rows=image_rows,
        image_uris=image_uris,
        observation_rows=None,
        labels={
            head: _null_if(cells[name], "", _MISSING_LABEL) for head, name in label_columns.items()
        },
        location_ids=_optional(cells, columns.location_column),
        deployment_ids=_optional(cells, columns.deployment_column),
        captured_at=times,
        meta={name: _null_if(cells[name], "") for name in columns.meta_columns},
    )
    return rows, found.plus(corrected).plus(
        _unreadable_times(cells, columns, event_ids, unreadable)
    )


def _corrected(
    times: pa.Array | None,
    cells: Mapping[str, Cells],
    columns: CsvColumns,
    corrections: ClockCorrections,
) -> tuple[pa.Array | None, Findings]:
    """The times of the rows by the right clock."""
    if times is None or not corrections.corrections:
        return times, Findings()
    names = (columns.deployment_column, columns.location_column)
    found = corrections.find(times, *(_optional(cells, name) for name in names))
    return found.of(times), found.findings


def _require_rows(uri: str, table: pa.Table) -> pa.Table:
    if table.num_rows == 0:
        raise SchemaError(f"{uri}: there is no row below the header")
    return table


def _group_rows(
    table: pa.Table,
    columns: CsvColumns,
    *,
    gap_s: float,
    max_rows: int | None,
    corrections: ClockCorrections,
) -> tuple[pa.Table, pa.Array]:
    """The rows in the order of their events, and the event id of each row.

    Rows of one camera with the same first image are several observations of that image; its time is
    the earliest of their times. A row without an image is an event of its own.

    R rows, U distinct first images.
    """
    cells = {name: table[name].combine_chunks() for name in table.column_names}
    images = [_null_if(cells[name], "") for name in columns.image_columns]
    uris = pc.coalesce(*images)
    is_blank = uris.is_null()
    blank_rows = np.flatnonzero(np.asarray(is_blank))
    uris = pc.replace_with_mask(uris, is_blank, _names_by_content(cells, blank_rows))
    cameras = _camera(cells, columns)
    keys = pc.binary_join_element_wise(pc.fill_null(cameras, ""), uris, pa.scalar("\0", TEXT))
    codes_R = keys.dictionary_encode().indices.to_numpy().astype(np.int64)
    times = _times(cells, columns)[0]
    times = _corrected(times, cells, columns, corrections)[0]
    times = pc.if_else(is_blank, pa.scalar(None, pa.timestamp("us")), times)
    micros_R = times.cast(pa.int64()).fill_null(np.iinfo(np.int64).max).to_numpy()
    by_image = np.lexsort((micros_R, codes_R))
    first_U = pa.array(by_image[np.unique(codes_R[by_image], return_index=True)[1]])
    grouped = group_by_gap(
        uris.take(first_U),
        times.take(first_U),
        cameras.take(first_U),
        gap_s=gap_s,
        max_images=max_rows,
    )
    rank_U = np.empty(len(first_U), np.int64)
    rank_U[grouped.order] = np.arange(len(first_U))
    order = np.lexsort((micros_R, rank_U[codes_R]))
    event_ids = grouped.event_ids.take(pa.array(rank_U[codes_R][order]))
    return table.take(pa.array(order)), event_ids


def _names_by_content(cells: Mapping[str, Cells], rows: Ints) -> pa.Array:
    """A unique name per row, made of its cells and its number among the rows with equal cells."""
    columns = [cells[name].take(pa.array(rows)).to_pylist() for name in sorted(cells)]
    n_equal: Counter[tuple[str, ...]] = Counter()
    names = []
    for row in zip(*columns, strict=True):
        n_equal[row] += 1
        names.append(f"\0{n_equal[row]} {row!r}")  # not the name of a file
    return pa.array(names, TEXT)


def _camera(cells: Mapping[str, Cells], columns: CsvColumns) -> pa.Array:
    """The camera of each row, a deployment at its location; null is unknown."""
    names = (columns.location_column, columns.deployment_column)
    known = [values for name in names if (values := _optional(cells, name)) is not None]
    if len(known) == 1:
        return known[0]
    location, deployment = known
    both = pc.binary_join_element_wise(
        pc.fill_null(location, ""), pc.fill_null(deployment, ""), pa.scalar("\0", TEXT)
    )
    return _null_if(both, "\0")


def _cells(
    uri: str, columns: CsvColumns, event_column: str
) -> tuple[dict[str, Cells], pa.DictionaryArray, CsvColumns, dict[str, str]]:
    """The cells by column, the event ids, the roles of the columns, and head -> its column.

    Images, times and event ids are read as text, all other columns dictionary-encoded. There are
    too many event ids to merge their dictionaries, one per block of the file.
    """
    as_text = {*columns.image_columns, columns.captured_at_column, event_column}
    names = columns.names()
    encoded = [name for name in names if name not in as_text]
    table = _require_rows(uri, read_columns(uri, names, read_dictionary=encoded))
    event_ids = table[event_column]
    with_role = {*columns.names(without_event=True)}
    table = table.select([name for name in names if name in with_role])
    table, columns, label_columns = columns.joined(table)

    def combined() -> dict[str, Cells]:
        cells: dict[str, Cells] = {}
        whole = table
        for name in whole.column_names:
            column = whole[name]
            whole = whole.drop_columns(name)  # frees the column's chunks once they are combined
            if pa.types.is_dictionary(column.type):
                column = column.unify_dictionaries()
            is_read_once = name == columns.captured_at_column and name not in columns.image_columns
            cells[name] = column if is_read_once else column.combine_chunks()
        return cells

    cells, ids = run_both(combined, partial(_encode_event_ids, uri, event_ids, event_column))
    return cells, ids, columns, label_columns


def _encode_event_ids(uri: str, event_ids: pa.ChunkedArray, column: str) -> pa.DictionaryArray:
    """The event ids dictionary-encoded, the distinct ids sorted.

    Raises:
        SchemaError: a row has no event id.
    """
    codes, distinct = factorize(event_ids, sort=True)
    if distinct[0].as_py() == "":
        line = line_of_empty_cell(uri, column)
        where = "a row" if line is None else f"line {line}"
        raise SchemaError(f"{uri}: {where} has no event id (column {column!r})")
    return pa.DictionaryArray.from_arrays(pa.array(codes), distinct)


def _null_if(values: pa.Array, *missing: str) -> pa.Array:
    """The values, null where they are one of `missing`."""
    if not pa.types.is_dictionary(values.type):
        is_missing = pc.is_in(values, value_set=pa.array(missing, values.type))
        return pc.if_else(is_missing, pa.scalar(None, values.type), values)
    distinct = values.dictionary
    kept = pc.invert(pc.is_in(distinct, value_set=pa.array(missing, distinct.type)))
    if pc.all(kept, min_count=0).as_py():
        return values
    renumbered = pc.if_else(kept, pc.cumulative_sum(kept.cast(pa.int32())), None)
    codes = pc.subtract(renumbered, 1).take(values.indices)
    return pa.DictionaryArray.from_arrays(codes, distinct.filter(kept))


def _optional(cells: Mapping[str, Cells], name: str | None) -> pa.Array | None:
    return None if name is None else _null_if(cells[name], "")


def _images(
    columns: Sequence[pa.Array],
) -> tuple[Ints | None, pa.Array]:
    """The row and the URI of each image: row by row, within a row column by column.

    None instead of rows: every row is one image.
    """
    n_rows = len(columns[0])
    if len(columns) == 1 and (pc.min_max(pc.binary_length(columns[0])).as_py()["min"] or 0) > 0:
        return None, columns[0]
    cells = pa.concat_arrays(columns)
    order = np.arange(len(cells)).reshape(len(columns), n_rows).T.ravel()
    is_image = pc.not_equal(cells, "").to_numpy(zero_copy_only=False)
    indices = order[is_image[order]]
    return indices % n_rows, cells.take(pa.array(indices))


def _times(cells: Mapping[str, Cells], columns: CsvColumns) -> tuple[pa.Array | None, Ints]:
    """The capture times, and the rows whose cell is neither empty nor a time."""
    name = columns.captured_at_column
    if name is None:
        return None, np.zeros(0, np.int64)
    times = parse_times(cells[name], time_format=columns.time_format)  # null for an empty cell too
    if times.null_count == 0:
        return times, np.zeros(0, np.int64)
    is_unreadable = pc.and_(times.is_null(), pc.not_equal(cells[name], ""))
    return times, np.flatnonzero(np.asarray(is_unreadable))


def _unreadable_times(
    cells: Mapping[str, Cells], columns: CsvColumns, event_ids: pa.Array, rows: Ints
) -> Findings:
    """A finding per row, named by the row's first image, else by its event."""
    if columns.captured_at_column is None or len(rows) == 0:
        return Findings()
    chosen = pa.array(rows)
    images = [_null_if(cells[name].take(chosen), "") for name in columns.image_columns]
    names = pc.coalesce(*images, event_ids.take(chosen).cast(pa.string()).cast(TEXT))
    return Findings().listed(
        "unreadable_times", names, cells[columns.captured_at_column].take(chosen)
    )
