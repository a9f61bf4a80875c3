"""The files of answers below the output of `ctc predict`: of images, of events, and of versions.

A unit writes one of each, with the same number.
"""

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.files import parquet, storage
from ctc_ray.runs.layout import number_of_part, part_stem

NOT_NOTED = "not noted"
"""The version of a file that was scored before versions were recorded: not known."""
_ENDING = ".parquet"
ABOUT_KEY = b"ctc_predictions"
"""Key of a file's schema: what the file says of the model that made it."""
IMAGES, EVENTS, VERSIONS = "images", "events", "_versions"  # folders below the output


def part_name(folder: str, number: int) -> str:
    """The path of a file below the output folder: that of a unit's images, events, or versions."""
    return f"{folder}/{part_stem(number)}.parquet"


def part_number(name: str) -> int:
    """The number in the path of such a file."""
    number = _number(name)
    if number is None:
        raise ValueError(f"{name}: no file of answers")
    return number


def _number(name: str) -> int | None:
    folder, _, file = name.partition("/")
    is_answers = bool(folder) and file.endswith(_ENDING)
    return number_of_part(file.removesuffix(_ENDING)) if is_answers else None


def read_versions(output_uri: str, name: str, image_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """The versions of the files that a unit has scored; `NOT_NOTED` where they are not known.

    Args:
        name: of the unit's images.
        image_ids: of the images asked for.
    """
    uri = storage.join(output_uri, part_name(VERSIONS, part_number(name)))
    if not storage.exists(uri):  # an earlier version of this program has scored them
        return pa.chunked_array([pa.array([NOT_NOTED] * len(image_ids), pa.string())])
    noted = parquet.read_table(uri)
    at = pc.index_in(image_ids, value_set=noted["image_id"].combine_chunks())
    return noted["version"].take(at)


def list_parts(output_uri: str, folder: str) -> list[str]:
    """The paths of the files of a folder below the output, in the order of their numbers."""
    uri = storage.join(storage.absolute(output_uri), folder)
    if not storage.is_folder(uri):
        return []
    names = [f"{folder}/{file[len(uri) + 1 :]}" for file in storage.list_files(uri)]
    return sorted((name for name in names if _number(name) is not None), key=part_number)


def keep_events(output_uri: str, name: str, events: pa.Array) -> None:
    """Write a file of images and its neighbours again without other events; images come last."""
    number = part_number(name)
    names = [part_name(folder, number) for folder in (EVENTS, VERSIONS, IMAGES)]
    uris = [storage.join(output_uri, one) for one in names]
    images = parquet.read_table(uris[-1])
    is_kept = pc.is_in(images["capture_event_id"], value_set=events)
    ids = images["image_id"].filter(is_kept).combine_chunks()
    for uri in uris:
        if not storage.exists(uri):  # of an earlier version of this program, or killed just here
            continue
        rows = images if uri == uris[-1] else parquet.read_table(uri)
        chosen = (
            pc.is_in(rows["image_id"], value_set=ids)
            if "image_id" in rows.column_names
            else pc.is_in(rows["capture_event_id"], value_set=events)
        )
        if len(events):
            parquet.write_table(uri, rows.filter(chosen))
        else:
            storage.delete_file(uri)


def read_empty_events(output_uri: str) -> tuple[pa.Table | None, list[str]]:
    """The predictions of events without images, and the files that hold them."""
    names = files_of_empty_events(output_uri)
    if not names:
        return None, []
    parts = [parquet.read_table(storage.join(output_uri, name)) for name in names]
    rows = pa.concat_tables(parts, promote_options="default")
    # an append that was killed just here has left two files with the same events
    last = {event: row for row, event in enumerate(rows["capture_event_id"].to_pylist())}
    return rows.take(pa.array(sorted(last.values()), pa.int64())), names


def files_of_empty_events(output_uri: str) -> list[str]:
    """The files of events without images."""
    return [
        name
        for name, has_images in _event_files(output_uri).items()
        if not (has_images or _is_left_behind(output_uri, name))
    ]


def _is_left_behind(output_uri: str, name: str) -> bool:
    """Whether a file of events without one of images is of a unit that was killed in its work."""
    n_images = parquet.read_table(storage.join(output_uri, name), ["n_images"])["n_images"]
    return bool(pc.any(pc.greater(n_images, 0)).as_py())


def delete_left_behind(output_uri: str) -> None:
    """Delete what units that were killed in their work have written."""
    images = {part_number(name) for name in list_parts(output_uri, IMAGES)}
    for name in list_parts(output_uri, EVENTS):
        if part_number(name) not in images and _is_left_behind(output_uri, name):
            storage.delete_file(storage.join(output_uri, name))
    for name in list_parts(output_uri, VERSIONS):
        if part_number(name) not in images:
            storage.delete_file(storage.join(output_uri, name))


def without_events_of_images(output_uri: str, events: pa.Table) -> pa.Table:
    """Those of the events that none of the folder's images belongs to."""
    for name, has_images in _event_files(output_uri).items():
        if has_images and events.num_rows:
            there = parquet.read_table(storage.join(output_uri, name), ["capture_event_id"])
            ids = there["capture_event_id"].combine_chunks()
            events = events.filter(pc.invert(pc.is_in(events["capture_event_id"], value_set=ids)))
    return events


def _event_files(output_uri: str) -> dict[str, bool]:
    """Path of a file of events -> whether there is one of their images."""
    images = {part_number(name) for name in list_parts(output_uri, IMAGES)}
    return {name: part_number(name) in images for name in list_parts(output_uri, EVENTS)}
