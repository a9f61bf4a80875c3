"""The Arrow schema at every door between stages, in the order in which the data meet them.

INVENTORY ─ create-dataset ─► SHARD ─ train ─► bundle ─ predict ─► PREDICTION ─► EVENT_PREDICTION

Columns that depend on the data (one per head, one per metadata field) are made by the functions
below, so a name like `label_species` is spelt in one place.
"""

from collections.abc import Sequence
from enum import StrEnum

import pyarrow as pa

from ctc_ray.errors import SchemaError

SCHEMA_VERSION = 1

# The underscore keeps both out of readers of a folder's other tables.
FAILURES_FILE = "_failures.parquet"
FINDINGS_FILE = "_findings.parquet"

LABEL_PREFIX = "label_"
META_PREFIX = "meta_"


class Failure(StrEnum):
    """Why a row could not be processed; the value of the `failure` column."""

    MISSING = "missing"  # there is no such file
    UNREADABLE = "unreadable"  # bytes that no decoder accepts, or a file that cannot be read
    TRUNCATED = "truncated"  # decodes only leniently: a part of the pixels is lost
    TOO_LARGE = "too_large"  # more pixels than `max_pixels`; not decoded
    UNSUPPORTED = "unsupported"  # not an image, or a format that is not decoded (video, PDF, …)


def label_column(head: str) -> str:
    """Column of a head's label in a shard: the class that a human gave, null if not labelled."""
    return f"{LABEL_PREFIX}{head}"


def meta_column(field: str) -> str:
    """Column of a metadata field of the source."""
    return f"{META_PREFIX}{field}"


def meta_columns(schema: pa.Schema) -> list[str]:
    """The metadata columns of a table, in the table's order."""
    return [name for name in schema.names if name.startswith(META_PREFIX)]


def meta_fields(schema: pa.Schema) -> list[str]:
    """The metadata fields of a table, without prefix, in the table's order."""
    return [name.removeprefix(META_PREFIX) for name in meta_columns(schema)]


def pred_column(head: str) -> str:
    """Column of a head's prediction: the class with the highest probability."""
    return f"pred_{head}"


def score_column(head: str) -> str:
    """Column of a head's score: the probability of its prediction."""
    return f"score_{head}"


def probs_column(head: str) -> str:
    """Column of a head's probabilities, one per class in the order of the label space."""
    return f"probs_{head}"


_IMAGE_FIELDS = (
    pa.field("image_id", pa.string(), nullable=False),  # hash of event and uri, 32 hex digits
    pa.field("image_uri", pa.string(), nullable=False),  # as the source names it
    pa.field("capture_event_id", pa.string(), nullable=False),
    pa.field("image_index", pa.int32(), nullable=False),  # place in the event, from 0
    pa.field("n_images", pa.int32(), nullable=False),  # images of the event
    pa.field("location_id", pa.string()),
    pa.field("deployment_id", pa.string()),
    pa.field("captured_at", pa.timestamp("us")),  # local time of the camera, no zone
)


BOX = pa.struct(
    [
        pa.field("category", pa.string()),  # what is in the box, as the source says it
        pa.field("confidence", pa.float32()),  # in [0, 1]; null where a human drew the box
        pa.field("x", pa.float32()),  # left edge; all four relative to the image, in [0, 1]
        pa.field("y", pa.float32()),  # upper edge
        pa.field("w", pa.float32()),
        pa.field("h", pa.float32()),
    ]
)
"""A box around something in an image."""


def image_fields(meta: Sequence[str] = ()) -> list[pa.Field]:
    """The columns that every image row carries from door to door; `meta` without prefix."""
    return [*_IMAGE_FIELDS, *(pa.field(meta_column(field), pa.string()) for field in meta)]


def inventory_schema(heads: Sequence[str], meta: Sequence[str] = ()) -> pa.Schema:
    """One row per image; `observations` repeats the event's observations on each of its images.

    `observation_counts` tells how often the source gave each of them; null: not known, once each.
    `boxes` are the image's own; null where nobody has looked for any. `content_hash` is the same of
    files that are equal byte for byte; null where nobody has compared them.

    Without heads there is nothing to observe and Parquet has no struct without fields, so the
    column is then a list of strings that is null on every row.
    """
    fields = [pa.field(head, pa.string()) for head in heads]
    observation = pa.struct(fields) if fields else pa.string()
    return pa.schema(
        [
            *image_fields(meta),
            pa.field("boxes", pa.list_(BOX)),
            pa.field("content_hash", pa.string()),
            pa.field("observations", pa.list_(observation)),
            pa.field("observation_counts", pa.list_(pa.int32())),
        ]
    )


def finding_schema() -> pa.Schema:
    """The findings table: what is worth telling about a source, one row per case."""
    return pa.schema(
        [
            pa.field("kind", pa.string(), nullable=False),  # e.g. duplicate_images
            pa.field("row", pa.string(), nullable=False),  # what it is about: a URI, an event id, …
            pa.field("detail", pa.string()),
        ]
    )


def planned_schema(heads: Sequence[str], meta: Sequence[str] = ()) -> pa.Schema:
    """An inventory row after filtering and labelling, waiting in its unit to be processed."""
    labels = [pa.field(label_column(head), pa.string()) for head in heads]
    return pa.schema([*image_fields(meta), *labels])


def shard_schema(heads: Sequence[str], meta: Sequence[str] = ()) -> pa.Schema:
    """One row per image of a split; jpeg is null exactly where failure is set.

    The split is the `split=` part of the file's path, which every Parquet reader shows as a column.
    """
    return pa.schema(
        [
            *planned_schema(heads, meta),
            pa.field("jpeg", pa.binary()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("failure", pa.string()),
        ]
    )


def _head_fields(heads: Sequence[str]) -> list[pa.Field]:
    fields = []
    for head in heads:
        fields += [
            pa.field(pred_column(head), pa.string()),
            pa.field(score_column(head), pa.float32()),
            pa.field(probs_column(head), pa.list_(pa.float32())),
        ]
    return fields


def prediction_schema(heads: Sequence[str], meta: Sequence[str] = ()) -> pa.Schema:
    """One row per image; the heads' columns are null exactly where failure is set."""
    return pa.schema([*image_fields(meta), pa.field("failure", pa.string()), *_head_fields(heads)])


def event_prediction_schema(heads: Sequence[str], meta: Sequence[str] = ()) -> pa.Schema:
    """One row per capture event; the heads' columns are null where all its images failed."""
    return pa.schema(
        [
            pa.field("capture_event_id", pa.string(), nullable=False),
            pa.field("n_images", pa.int32(), nullable=False),
            pa.field("n_failed", pa.int32(), nullable=False),
            pa.field("location_id", pa.string()),
            pa.field("deployment_id", pa.string()),
            pa.field("captured_at", pa.timestamp("us")),  # of the event's first dated image
            *(pa.field(meta_column(field), pa.string()) for field in meta),
            *_head_fields(heads),
        ]
    )


def failure_schema() -> pa.Schema:
    """The failures table: one row per image that could not be processed."""
    return pa.schema([*_IMAGE_FIELDS[:4], pa.field("failure", pa.string(), nullable=False)])


def conform(table: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """The table with exactly the schema's columns, order and types; columns beyond it are dropped.

    Raises:
        SchemaError: a column is missing, cannot be cast, or holds nulls where none may be.
    """
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise SchemaError(
            f"{where}: column {missing[0]!r} not found; columns are {', '.join(table.column_names)}"
        )
    try:
        result = table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise SchemaError(f"{where}: {error}") from error
    for field in schema:
        if not field.nullable and result.column(field.name).null_count:
            raise SchemaError(f"{where}: column {field.name!r} holds nulls")
    return result
