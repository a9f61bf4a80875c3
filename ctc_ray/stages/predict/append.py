"""Predictions that grow: new and replaced files are scored, and their events answered again.

A helper of `ctc predict --append`. The folder itself says how far an append has come, so that it
resumes whatever has changed since it was killed. An event that has changed is answered in a new
file; the file that has answered it before keeps its rows until all new files are there. Of several
files with the same event, that with the highest number is valid.

E events, N rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.columns.factorize import factorize
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.append_journal import is_growing, note_append
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import MANIFEST_NAME, is_complete
from ctc_ray.runs.output_folder import difference, work_of
from ctc_ray.runs.units import PlanWriter, Unit
from ctc_ray.schemas import image_fields, meta_fields
from ctc_ray.stages.predict.scoring import (
    ANSWER_FILE,
    ANSWER_ROW,
    EVENTS,
    IMAGES,
    VERSIONS,
    part_name,
    part_number,
    read_versions,
)
from ctc_ray.stages.predict.sources import VERSION, versions_now

_SOURCES = ("csv_uri", "inventory_uri", "dataset_uri")  # may be other ones; image ids are theirs
_PLAN = "append"
_OF_EVENT = ("image_index", "n_images")  # follow from the images of the event

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answered:
    """The images that a folder of predictions answers, each once."""

    uri: str
    rows: pa.Table
    """Columns of an image, `ANSWER_FILE`, `ANSWER_ROW`, and `VERSION` where `has_version`."""
    has_version: Flags
    """Whether the version is known; earlier versions of this program did not note it."""
    n_rows_of_file: Mapping[str, int]
    """Path of a file of images below the folder -> its rows, those that are not valid included."""

    @property
    def next_number(self) -> int:
        """The number of the next new file."""
        names = [*self.n_rows_of_file, *_files_of_empty_events(self.uri)]
        return 1 + max(map(part_number, names), default=-1)


def read_answered(output_uri: str, meta: Sequence[str]) -> Answered:
    """What a folder of predictions answers, finished or not.

    Args:
        meta: metadata fields of the images.

    Raises:
        ConfigError: its images have other metadata fields.
    """
    columns = [field.name for field in image_fields(meta)]
    parts, known = [pa.schema(image_fields(meta)).empty_table()], [np.zeros(0, bool)]
    parts[0] = _with_answer(parts[0], "", np.zeros(0, np.int64), pa.nulls(0, pa.string()))
    n_rows: dict[str, int] = {}
    for name in _parts(output_uri, IMAGES):
        with parquet.open_parquet(storage.join(output_uri, name)) as file:
            there = meta_fields(file.schema_arrow)
        if there != list(meta):
            raise ConfigError(
                f"append: the source has the columns {', '.join(meta) or 'none'}, the predictions "
                f"in {output_uri} {', '.join(there) or 'none'}"
            )
        rows = parquet.read_table(storage.join(output_uri, name), columns)
        version_N, has_version = read_versions(output_uri, name, rows["image_id"])
        n_rows[name] = rows.num_rows
        parts.append(_with_answer(rows, name, np.arange(rows.num_rows), version_N))
        known.append(np.full(rows.num_rows, has_version))
    rows = pa.concat_tables(parts)
    event_N, events = factorize(rows["capture_event_id"])
    file_N = np.repeat(np.arange(len(parts)), [part.num_rows for part in parts])
    newest_E = np.zeros(len(events), np.int64)
    np.maximum.at(newest_E, event_N, file_N)  # files come in the order of their numbers
    valid_N = newest_E[event_N] == file_N
    return Answered(
        output_uri, rows.filter(pa.array(valid_N)), np.concatenate(known)[valid_N], n_rows
    )


def _parts(output_uri: str, folder: str) -> list[str]:
    """The paths of the files of a folder below the output, in the order of their numbers."""
    if not storage.is_folder(storage.join(output_uri, folder)):
        return []
    below = len(storage.absolute(output_uri).rstrip("/")) + 1
    names = [uri[below:] for uri in parquet.list_tables(storage.absolute(output_uri))]
    return sorted((name for name in names if name.startswith(f"{folder}/")), key=part_number)


def _with_answer(rows: pa.Table, file: str, row_N: Ints, version_N: pa.Array) -> pa.Table:
    rows = rows.append_column(ANSWER_FILE, pa.array([file] * rows.num_rows, pa.string()))
    rows = rows.append_column(ANSWER_ROW, pa.array(row_N, pa.int64()))
    return rows.append_column(VERSION, version_N)


@dataclass(frozen=True)
class Growth:
    """What there is to do."""

    answered: Answered
    rows: pa.Table
    """The images of all events that change; with `ANSWER_FILE` and `ANSWER_ROW`, which are null
    where the image is to be scored."""
    changed: pa.Array
    """Events of which files that are there have answers that are no longer valid."""
    n_new: int
    n_replaced: int
    n_gone: int
    """Images that the source no longer names; their answers are kept."""

    @cached_property
    def is_nothing(self) -> bool:
        """Whether the folder holds what it should."""
        n_there = sum(self.answered.n_rows_of_file.values())
        return not (self.rows.num_rows or len(self.changed)) and (
            n_there == self.answered.rows.num_rows
        )

    def __str__(self) -> str:
        return (
            f"{self.n_new:,} new images, {self.n_replaced:,} replaced, {self.n_gone:,} gone "
            "(their answers are kept)"
        )

    @property
    def n_images(self) -> int:
        """Images that the folder answers when this is done."""
        kept = pc.invert(pc.is_in(self.answered.rows["capture_event_id"], value_set=self.changed))
        n_kept: int = self.answered.rows.filter(kept).num_rows
        n_planned: int = self.rows.num_rows
        return n_kept + n_planned


def plan_growth(answered: Answered, rows: pa.Table, version_N: pa.Array) -> Growth:
    """Compare the images of the source with those that have an answer.

    Args:
        rows: of the source; rows of an event are neighbours.
        version_N: of each row's file, as it is now.
    """
    there = answered.rows
    own_N = pc.index_in(rows["image_id"], value_set=there["image_id"].combine_chunks())
    of_file_N = pc.index_in(rows["image_uri"], value_set=there["image_uri"].combine_chunks())
    answer_N = pc.coalesce(own_N, of_file_N)  # an image may have come into another event
    is_current = _equal(there[VERSION].take(answer_N), version_N) | _flags(
        pc.invert(pa.array(answered.has_version)).take(answer_N)
    )
    is_known = pc.is_valid(answer_N).to_numpy(zero_copy_only=False)
    is_same = pc.is_valid(own_N).to_numpy(zero_copy_only=False) & is_current
    for name in there.column_names:
        if name in rows.column_names and name not in _OF_EVENT:
            is_same &= _equal(there[name].take(own_N), rows[name])
    is_named = pc.is_in(there["image_uri"], value_set=rows["image_uri"].combine_chunks())
    has_row = pc.is_in(there["image_id"], value_set=rows["image_id"].combine_chunks())
    has_moved = pc.and_(is_named, pc.invert(has_row))
    changed = pc.unique(
        pa.chunked_array(
            [
                *rows["capture_event_id"].filter(pa.array(~is_same)).chunks,
                *there["capture_event_id"].filter(has_moved).chunks,
            ],
            pa.string(),
        )
    )
    keeps_answer = pa.array(is_known & is_current)
    none = pa.scalar(None, pa.string())
    taken = there.select([ANSWER_FILE, ANSWER_ROW]).take(answer_N)
    rows = rows.append_column(ANSWER_FILE, pc.if_else(keeps_answer, taken[ANSWER_FILE], none))
    rows = rows.append_column(ANSWER_ROW, taken[ANSWER_ROW])
    gone = there.filter(pc.invert(is_named)).drop_columns([VERSION])
    planned = pa.concat_tables(
        [_of_events(rows, changed), _of_events(gone, changed)], promote_options="default"
    )
    return Growth(
        answered,
        _events_together(planned),
        changed,
        n_new=int((~is_known).sum()),
        n_replaced=int((is_known & ~is_current).sum()),
        n_gone=gone.num_rows,
    )


def _of_events(rows: pa.Table, events: pa.Array) -> pa.Table:
    return rows.filter(pc.is_in(rows["capture_event_id"], value_set=events))


def _equal(one: pa.ChunkedArray, other: pa.ChunkedArray | pa.Array) -> Flags:
    """Whether two values are equal, or both unknown."""
    found = pc.or_(
        pc.fill_null(pc.equal(one, other), fill_value=False),
        pc.and_(pc.is_null(one), pc.is_null(other)),
    )
    return _flags(found)


def _flags(values: pa.Array | pa.ChunkedArray) -> Flags:
    found: Flags = pc.fill_null(values, fill_value=False).to_numpy(zero_copy_only=False)
    return found.astype(bool)


def _events_together(rows: pa.Table) -> pa.Table:
    """Rows of an event as neighbours, the events in the order of their first rows, and counted."""
    event_N, _ = factorize(rows["capture_event_id"])
    rows = rows.take(pa.array(np.argsort(event_N, kind="stable")))
    starts_E = run_starts(rows["capture_event_id"])
    n_images_E = np.diff(starts_E, append=rows.num_rows)
    values = {
        "image_index": np.arange(rows.num_rows) - np.repeat(starts_E, n_images_E),
        "n_images": np.repeat(n_images_E, n_images_E),
    }
    for name, column in values.items():
        at = rows.column_names.index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array(column, pa.int32()))
    return rows


def require_same_settings(
    output_uri: str, there: Mapping[str, Any], now: Mapping[str, Any], *, bundle_uri: str
) -> None:
    """Check that these predictions can grow by what another run would make.

    Args:
        there: the fields that determine the predictions.
        now: those of this run. It may have another csv, inventory or dataset.

    Raises:
        ConfigError: another setting differs, or the model does.
    """
    old, new = (_settings(fields, bundle_uri) for fields in (there, now))
    if old != new:
        raise ConfigError(
            f"{output_uri}: was made with other settings ({difference(old, new)}); append with the "
            "same ones, or choose another --output-uri"
        )


def _settings(fields: Mapping[str, Any], bundle_uri: str) -> dict[str, Any]:
    """The fields without what the source holds, and where a source lies that may be another."""
    model = {"inputs": {bundle_uri: fields["inputs"].get(bundle_uri)}}
    given = {name: fields.get(name) is not None for name in _SOURCES}
    return {**fields, **given, **model}


def begin(growth: Growth, inputs: Mapping[str, str], *, images_per_unit: int) -> list[Unit]:
    """Write the plan; from now on the predictions are not complete.

    Returns:
        The units of all images that are to be answered again.
    """
    uri = growth.answered.uri
    note_append(uri, inputs)
    storage.delete_file(storage.join(uri, MANIFEST_NAME))
    for plan in (_PLAN, IMAGES):  # of a run that was killed
        storage.delete_folder(storage.join(uri, WORK_FOLDER, plan))
    writer = PlanWriter(
        uri,
        IMAGES,
        images_per_unit,
        first=growth.answered.next_number,
        plans=storage.join(WORK_FOLDER, _PLAN),
    )
    writer.add(growth.rows)
    return writer.finish()


def drop_former_answers(growth: Growth) -> list[Unit]:
    """Take the answers that are no longer valid out of the files that were there before.

    Returns:
        These files as units that are done.
    """
    answered, units = growth.answered, []
    unchanged = pc.invert(pc.is_in(answered.rows["capture_event_id"], value_set=growth.changed))
    valid = answered.rows.filter(unchanged).select([ANSWER_FILE, "capture_event_id"])
    n_valid = {v["values"]: v["counts"] for v in pc.value_counts(valid[ANSWER_FILE]).to_pylist()}
    for name, n_rows in answered.n_rows_of_file.items():
        n_left = n_valid.get(name, 0)
        if n_left < n_rows:
            events = valid.filter(pc.equal(valid[ANSWER_FILE], name))["capture_event_id"]
            _keep_events(answered.uri, name, pc.unique(events))
        if n_left:
            units.append(Unit(name, plan_file="", index=0, n_rows=n_left))
    return units


def _keep_events(output_uri: str, name: str, events: pa.Array) -> None:
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
        rows = parquet.read_table(uri)
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
    names = _files_of_empty_events(output_uri)
    if not names:
        return None, []
    rows = [parquet.read_table(storage.join(output_uri, name)) for name in names]
    return pa.concat_tables(rows), names


def _files_of_empty_events(output_uri: str) -> list[str]:
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
    images = {part_number(name) for name in _parts(output_uri, IMAGES)}
    for name in _parts(output_uri, EVENTS):
        if part_number(name) not in images and _is_left_behind(output_uri, name):
            storage.delete_file(storage.join(output_uri, name))
    folder = storage.join(output_uri, VERSIONS)
    for name in sorted(storage.versions_in(folder)):
        if part_number(name) not in images:
            storage.delete_file(storage.join(folder, name))


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
    images = {part_number(name) for name in _parts(output_uri, IMAGES)}
    return {name: part_number(name) in images for name in _parts(output_uri, EVENTS)}


def require_unchanged(config: PredictConfig, fields: Mapping[str, Any], rows: pa.Table) -> None:
    """Check that a run that goes on, or has finished, has the images that it began with.

    Args:
        fields: what determines the predictions.
        rows: of the source, as it is now.

    Raises:
        ConfigError: images are new or replaced; or an append is not finished.
    """
    uri = config.output_uri
    there = work_of(uri, "predictions") if storage.is_folder(uri) else None
    if there is None:
        return
    is_finished = is_complete(uri)
    if is_growing(uri) and not is_finished:
        raise ConfigError(f"{uri}: an append is not finished; run it again, with --append")
    if _settings(there, config.bundle_uri) != _settings(fields, config.bundle_uri):
        return  # this is told where the run is opened
    if not is_finished:
        if there != fields:
            raise ConfigError(
                f"{uri}: the source has changed since this was begun; --append keeps what is "
                "answered and does the rest, --overwrite begins anew"
            )
        return
    growth = plan_growth(
        read_answered(uri, meta_fields(rows.schema)), rows, versions_now(config, rows)
    )
    if there != fields or growth.n_replaced:
        raise ConfigError(
            f"{uri}: the source has changed since ({growth}); --append answers for what is new, "
            "--overwrite begins anew"
        )
