"""The exported files of `ctc predict`, joined from parts of one unit each.

A worker makes the parts of a unit with its answers, below `_work/exports/`; at the end those that
are missing are made, and each file is joined. A run that was killed finds the finished parts there.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import pyarrow as pa

from ctc_ray.columns.threads import map_ahead
from ctc_ray.config.choices import ExportFormat
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.writers.exports import Export, exports
from ctc_ray.runs.layout import WORK_FOLDER, part_stem
from ctc_ray.schemas import labelled_heads, meta_fields
from ctc_ray.stages.predict.answer_files import (
    EVENTS,
    IMAGES,
    part_name,
    part_number,
    read_empty_events,
)

_FOLDER = f"{WORK_FOLDER}/exports"
_AT_ONCE = 8  # parts; most of the time a store is waited for


def _part_file(export: Export, number: int) -> str:
    return f"{_FOLDER}/{export.name}/{part_stem(number)}"


def parts_of_unit(
    formats: Sequence[ExportFormat],
    number: int,
    images: pa.Table,
    events: pa.Table,
    labels: LabelSpace,
) -> dict[str, pa.Buffer]:
    """The parts of one unit: path below the output folder -> content.

    Args:
        number: of the unit's file.
    """
    meta, labelled = meta_fields(images.schema), labelled_heads(images.schema, labels.heads)
    return {
        _part_file(export, number): pa.py_buffer(export.part(images, events))
        for export in exports(formats, labels, meta, labelled)
    }


def forget_parts(output_uri: str, number: int) -> None:
    """Delete the parts of a unit whose answers are about to change."""
    folder = storage.join(output_uri, _FOLDER)
    for name in storage.folders_in(folder) if storage.is_folder(folder) else ():
        storage.delete_file(storage.join(folder, name, part_stem(number)))


def formats_there(output_uri: str, labels: LabelSpace) -> list[ExportFormat]:
    """The formats of which the folder has a file."""
    formats: tuple[ExportFormat, ...] = get_args(ExportFormat)
    return [one for one in formats if any(_are_there(output_uri, [one], labels))]


def lacks_exports(output_uri: str, formats: Sequence[ExportFormat], labels: LabelSpace) -> bool:
    """Whether a file of these formats is not there."""
    return not all(_are_there(output_uri, formats, labels))


def _are_there(
    output_uri: str, formats: Sequence[ExportFormat], labels: LabelSpace
) -> Iterator[bool]:
    for export in exports(formats, labels, (), ()):
        yield storage.exists(storage.join(output_uri, export.name))


def write_exports(
    output_uri: str, names: Sequence[str], formats: Sequence[ExportFormat], labels: LabelSpace
) -> None:
    """Write the files of all formats; a few parts are in memory at a time.

    Args:
        names: the files of images below the output, in order.
    """
    if not formats:
        return
    with parquet.open_parquet(storage.join(output_uri, names[0])) as file:
        schema = file.schema_arrow
    meta, labelled = meta_fields(schema), labelled_heads(schema, labels.heads)
    found = exports(formats, labels, meta, labelled)
    numbers = [part_number(name) for name in names]
    _make_missing(output_uri, numbers, formats, found, labels)
    empty, _ = read_empty_events(output_uri)

    def read(name: str) -> bytes:
        return storage.read_bytes(storage.join(output_uri, name))

    def parts(export: Export) -> Iterator[bytes]:
        names = (_part_file(export, number) for number in numbers)
        yield from map_ahead(read, names, n_threads=_AT_ONCE)
        if empty is not None:
            yield export.part(schema.empty_table(), empty)

    for export in found:
        uri = storage.join(output_uri, export.name)
        storage.write_chunks(uri, export.whole(parts(export)))


def _make_missing(
    output_uri: str,
    numbers: Sequence[int],
    formats: Sequence[ExportFormat],
    found: Sequence[Export],
    labels: LabelSpace,
) -> None:
    there = _parts_there(output_uri)

    def make(number: int) -> Mapping[str, pa.Buffer]:
        images, events = (
            parquet.read_table(storage.join(output_uri, part_name(folder, number)))
            for folder in (IMAGES, EVENTS)
        )
        return parts_of_unit(formats, number, images, events, labels)

    missing = (n for n in numbers if any(_part_file(export, n) not in there for export in found))
    for files in map_ahead(make, missing, n_threads=_AT_ONCE):
        for name, content in files.items():
            storage.write_bytes(storage.join(output_uri, name), content)


def _parts_there(output_uri: str) -> set[str]:
    uri = storage.join(storage.absolute(output_uri), _FOLDER)
    files = storage.list_files(uri) if storage.is_folder(uri) else ()
    return {f"{_FOLDER}/{file[len(uri) + 1 :]}" for file in files}
