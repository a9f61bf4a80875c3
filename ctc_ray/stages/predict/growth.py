"""What `ctc predict --append` has to do: the images of a source beside those that have an answer.

E events, N rows.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.columns.factorize import factorize
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.schemas import (
    LABEL_PREFIX,
    Failure,
    image_fields,
    label_column,
    meta_fields,
    with_label_columns,
)
from ctc_ray.stages.predict.answer_files import (
    IMAGES,
    NOT_NOTED,
    files_of_empty_events,
    list_parts,
    part_number,
    read_versions,
)
from ctc_ray.stages.predict.scoring import ANSWER_FILE, ANSWER_ROW
from ctc_ray.stages.predict.sources import VERSION

_OF_EVENT = ("image_index", "n_images")  # follow from the images of the event

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answered:
    """The images that a folder of predictions answers, each once."""

    uri: str
    rows: pa.Table
    """Columns of an image, its labels, `failure`, `ANSWER_FILE`, `ANSWER_ROW`, and `VERSION`."""
    n_rows_of_file: Mapping[str, int]
    """Path of a file of images below the folder -> its rows, those that are not valid included."""
    labelled: Sequence[str]
    """The heads for which these images or the source have labels."""
    lacking: frozenset[str] = frozenset()
    """The files that have no column for some of these labels."""

    @property
    def next_number(self) -> int:
        """The number of the next new file."""
        names = [*self.n_rows_of_file, *files_of_empty_events(self.uri)]
        return 1 + max(map(part_number, names), default=-1)


def read_answered(output_uri: str, planned: pa.Schema) -> Answered:
    """What a folder of predictions answers, finished or not.

    Args:
        planned: columns of the source: those of an image, its metadata and its labels.

    Raises:
        ConfigError: its images have other metadata fields.
    """
    meta, labelled = meta_fields(planned), _labelled(planned)
    schema = pa.schema([*image_fields(meta), pa.field("failure", pa.string())])
    parts = [_with_answer(schema.empty_table(), "", pa.nulls(0, pa.string()))]
    n_rows: dict[str, int] = {}
    labels_of_file: dict[str, list[str]] = {}
    for name in list_parts(output_uri, IMAGES):
        with parquet.open_parquet(storage.join(output_uri, name)) as file:
            there = meta_fields(file.schema_arrow)
            labels_of_file[name] = _labelled(file.schema_arrow)
        if there != meta:
            raise ConfigError(
                f"append: the source has the metadata columns {', '.join(meta) or 'none'}, the "
                f"predictions in {output_uri} {', '.join(there) or 'none'}; choose another "
                "--output-uri"
            )
        columns = [*schema.names, *map(label_column, labels_of_file[name])]
        rows = parquet.read_table(storage.join(output_uri, name), columns)
        n_rows[name] = rows.num_rows
        version_N = read_versions(output_uri, name, rows["image_id"])
        parts.append(_with_answer(rows, name, version_N))
    labelled = list(dict.fromkeys([*labelled, *itertools.chain(*labels_of_file.values())]))
    lacking = [name for name, heads in labels_of_file.items() if set(heads) < set(labelled)]
    names = [*parts[0].column_names, *map(label_column, labelled)]
    rows = pa.concat_tables(with_label_columns(part, labelled).select(names) for part in parts)
    event_N, events = factorize(rows["capture_event_id"])
    file_N = np.repeat(np.arange(len(parts)), [part.num_rows for part in parts])
    newest_E = np.zeros(len(events), np.int64)
    np.maximum.at(newest_E, event_N, file_N)  # files come in the order of their numbers
    valid_N = newest_E[event_N] == file_N
    return Answered(
        output_uri, rows.filter(pa.array(valid_N)), n_rows, labelled, frozenset(lacking)
    )


def _labelled(schema: pa.Schema) -> list[str]:
    names = [name for name in schema.names if name.startswith(LABEL_PREFIX)]
    return [name.removeprefix(LABEL_PREFIX) for name in names]


def _with_answer(rows: pa.Table, file: str, version_N: pa.Array) -> pa.Table:
    rows = rows.append_column(ANSWER_FILE, pa.array([file] * rows.num_rows, pa.string()))
    rows = rows.append_column(ANSWER_ROW, pa.array(np.arange(rows.num_rows), pa.int64()))
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
    n_relabelled: int
    """Images whose labels have changed."""
    n_gone: int
    """Images that the source no longer names, or whose files are no longer there; their answers
    are kept."""

    @cached_property
    def is_nothing(self) -> bool:
        """Whether the folder holds what it should."""
        n_there = sum(self.answered.n_rows_of_file.values())
        return not (self.rows.num_rows or len(self.changed)) and (
            n_there == self.answered.rows.num_rows
        )

    def __str__(self) -> str:
        relabelled = f", {self.n_relabelled:,} with other labels" if self.n_relabelled else ""
        return (
            f"{self.n_new:,} new images, {self.n_replaced:,} replaced, {self.n_gone:,} gone "
            f"(their answers are kept){relabelled}"
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

    An event whose labels have changed changes, but the answers for its images are kept.

    Args:
        rows: of the source; rows of an event are neighbours.
        version_N: of each row's file, as it is now.
    """
    there, rows = answered.rows, with_label_columns(rows, answered.labelled)
    own_N = pc.index_in(rows["image_id"], value_set=there["image_id"].combine_chunks())
    of_file_N = pc.index_in(rows["image_uri"], value_set=there["image_uri"].combine_chunks())
    answer_N = pc.coalesce(own_N, of_file_N)  # an image may have come into another event
    noted_N, failure_N = there[VERSION].take(answer_N), there["failure"].take(answer_N)
    is_known = _flags(pc.is_valid(answer_N))
    is_away = is_known & _flags(pc.is_null(version_N)) & _flags(pc.is_valid(noted_N))
    is_current = _equal(noted_N, version_N) | _flags(pc.equal(noted_N, NOT_NOTED)) | is_away
    # not to be opened then, e.g. for want of a right: it is tried again, and may be as it was
    is_retried = _flags(pc.equal(failure_N, Failure.UNREADABLE)) & _flags(pc.is_null(noted_N))
    is_same = _flags(pc.is_valid(own_N)) & is_current
    for field in image_fields(meta_fields(there.schema)):
        if field.name not in _OF_EVENT:
            is_same &= _equal(there[field.name].take(own_N), rows[field.name])
    has_labels = np.ones(rows.num_rows, bool)
    for name in map(label_column, answered.labelled):
        has_labels &= _equal(there[name].take(answer_N), rows[name])
    in_lacking = pc.is_in(there[ANSWER_FILE], value_set=pa.array(answered.lacking, pa.string()))
    is_named = pc.is_in(there["image_uri"], value_set=rows["image_uri"].combine_chunks())
    has_row = pc.is_in(there["image_id"], value_set=rows["image_id"].combine_chunks())
    has_moved = pc.and_(is_named, pc.invert(has_row))
    changed = pc.unique(
        pa.chunked_array(
            [
                *rows["capture_event_id"].filter(pa.array(~(is_same & has_labels))).chunks,
                *there["capture_event_id"].filter(pc.or_(has_moved, in_lacking)).chunks,
            ],
            pa.string(),
        )
    )
    keeps_answer = pa.array(is_known & is_current)
    none = pa.scalar(None, pa.string())
    taken = there.select([ANSWER_FILE, ANSWER_ROW]).take(answer_N)
    rows = rows.append_column(ANSWER_FILE, pc.if_else(keeps_answer, taken[ANSWER_FILE], none))
    rows = rows.append_column(ANSWER_ROW, taken[ANSWER_ROW])
    gone = there.filter(pc.invert(is_named)).drop_columns([VERSION, "failure"])
    planned = pa.concat_tables(
        [_of_events(rows, changed), _of_events(gone, changed)], promote_options="default"
    )
    return Growth(
        answered,
        _events_together(planned),
        changed,
        n_new=int((~is_known).sum()),
        n_replaced=int((is_known & ~is_current & ~is_retried).sum()),
        n_relabelled=int((is_known & ~has_labels).sum()),
        n_gone=gone.num_rows + int(is_away.sum()),
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
