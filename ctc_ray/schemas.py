"""The Arrow schemas of the tables that stages exchange, in the order of the data.

INVENTORY ─ create-dataset ─► SHARD ─ train ─► bundle ─ predict ─► PREDICTION ─► EVENT_PREDICTION

The functions below make the names that depend on the data (one column per head or metadata field),
so a name like `label_species` is spelt nowhere else.
"""

from collections.abc import Sequence
from enum import StrEnum

import pyarrow as pa

from ctc_ray.errors import SchemaError

SCHEMA_VERSION = 1

# Readers of a folder of Parquet files leave out names that begin with an underscore.
FAILURES_FILE = "_failures.parquet"
FINDINGS_FILE = "_findings.parquet"

LABEL_PREFIX = "label_"
META_PREFIX = "meta_"


class Failure(StrEnum):
    """Why a row could not be processed; the value of the `failure` column."""

    MISSING = "missing"  # the file does not exist
    UNREADABLE = "unreadable"  # no decoder accepts the bytes, or reading the file fails
    TRUNCATED = "truncated"  # a part of the pixels is lost; decodes only leniently
    TOO_LARGE = "too_large"  # more pixels than `max_pixels`; not decoded
    UNSUPPORTED = "unsupported"  # not an image, or a format that is not decoded (video, PDF, …)
    NOT_ALLOWED = "not_allowed"  # the row names a file that rows may not name; nothing is read
    MODEL = "model"  # the model's answer is not a number
    CRASHED = "crashed"  # ends, every time, the process that works on it


def label_column(head: str) -> str:
    """Column of a head's label: the class that a human gave; null: not labelled."""
    return f"{LABEL_PREFIX}{head}"


def labelled_heads(schema: pa.Schema, heads: Sequence[str]) -> list[str]:
    """Those of the heads that a table has a column of labels for, in their order."""
    return [head for head in heads if label_column(head) in schema.names]


def with_label_columns(table: pa.Table, heads: Sequence[str]) -> pa.Table:
    """The table with a column of labels for each of the heads: null where it had none."""
    for name in map(label_column, heads):
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    return table


def meta_column(field: str) -> str:
    """Column of a metadata field of the source; its values are text."""
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
    """Column of a head's score: the probability of the predicted class, in [0, 1]."""
    return f"score_{head}"


def probs_column(head: str) -> str:
    """Column of a head's probabilities, one per class in the order of the label space."""
    return f"probs_{head}"


def margin_column(head: str) -> str:
    """Column of a head's margin in events: the score minus the probability of the second class."""
    return f"margin_{head}"


def top_column(head: str) -> str:
    """Column of a head's best classes in events, the best first; it stands in for `probs_`."""
    return f"top_{head}"


TOP_CLASS = pa.struct([pa.field("class", pa.string()), pa.field("score", pa.float32())])
"""One of the best classes of an event, and its probability."""


_IMAGE_FIELDS = (
    pa.field("image_id", pa.string(), nullable=False),  # hash of event and uri, 32 hex digits
    pa.field("image_uri", pa.string(), nullable=False),  # as the source names it
    pa.field("capture_event_id", pa.string(), nullable=False),
    pa.field("image_index", pa.int32(), nullable=False),  # index within the event, from 0
    pa.field("n_images", pa.int32(), nullable=False),  # images of the event
    pa.field("location_id", pa.string()),
    pa.field("deployment_id", pa.string()),
    pa.field("captured_at", pa.timestamp("us")),  # local time of the camera, no zone
)


BOX = pa.struct(
    [
        pa.field("category", pa.string()),  # content of the box, in the source's words
        pa.field("confidence", pa.float32()),  # in [0, 1]; null where a human drew the box
        pa.field("x", pa.float32()),  # left edge; all four relative to the image, in [0, 1]
        pa.field("y", pa.float32()),  # upper edge
        pa.field("w", pa.float32()),
        pa.field("h", pa.float32()),
    ]
)
"""A box around an object in an image."""


def image_fields(meta: Sequence[str] = ()) -> list[pa.Field]:
    """The columns that every table of images has.

    Args:
        meta: metadata fields, without prefix.
    """
    return [*_IMAGE_FIELDS, *(pa.field(meta_column(field), pa.string()) for field in meta)]


def inventory_schema(heads: Sequence[str], meta: Sequence[str] = ()) -> pa.Schema:
    """The inventory: one row per image.

    - `observations`: the observations of the image's event, so the images of an event have equal
      values.
    - `observation_counts`: how often the source gives each observation; null: it gives no counts,
      and each observation counts once.
    - `boxes`: the boxes of this image; null: the image was not searched for objects.
    - `content_hash`: equal for files with equal bytes; null: the files were not compared.

    Parquet has no struct without fields: without heads, `observations` is a list of strings that is
    null on every row.
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
    """The findings table: oddities of a source that its user should know, one row per case."""
    return pa.schema(
        [
            pa.field("kind", pa.string(), nullable=False),  # e.g. duplicate_images
            pa.field("row", pa.string(), nullable=False),  # the subject: a URI, an event id, …
            pa.field("detail", pa.string()),
        ]
    )


def planned_schema(heads: Sequence[str], meta: Sequence[str] = ()) -> pa.Schema:
    """The plan of a dataset's units: one row per image that was selected and labelled."""
    return pa.schema([*image_fields(meta), *_label_fields(heads)])


def shard_schema(heads: Sequence[str], meta: Sequence[str] = ()) -> pa.Schema:
    """A shard: one row per image of a split; `jpeg` is null exactly where `failure` is set.

    The split is the `split=` part of the file's path. Parquet readers show it as a column.
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


def _label_fields(heads: Sequence[str]) -> list[pa.Field]:
    return [pa.field(label_column(head), pa.string()) for head in heads]


def _head_fields(heads: Sequence[str]) -> list[pa.Field]:
    return [
        field
        for head in heads
        for field in (
            pa.field(pred_column(head), pa.string()),
            pa.field(score_column(head), pa.float32()),
            pa.field(probs_column(head), pa.list_(pa.float32())),
        )
    ]


def _event_head_fields(heads: Sequence[str], *, is_top: bool) -> list[pa.Field]:
    return [
        field
        for head in heads
        for field in (
            pa.field(pred_column(head), pa.string()),
            pa.field(score_column(head), pa.float32()),
            pa.field(margin_column(head), pa.float32()),
            pa.field(top_column(head), pa.list_(TOP_CLASS))
            if is_top
            else pa.field(probs_column(head), pa.list_(pa.float32())),
        )
    ]


def prediction_schema(
    heads: Sequence[str], meta: Sequence[str] = (), labelled: Sequence[str] = ()
) -> pa.Schema:
    """Predictions per image; the heads' predictions are null exactly where `failure` is set.

    Args:
        meta: metadata fields, without prefix.
        labelled: heads for which the source gives labels; a label may be no class of the model.
    """
    failure = pa.field("failure", pa.string())
    return pa.schema([*image_fields(meta), *_label_fields(labelled), failure, *_head_fields(heads)])


def scored_schema(
    heads: Sequence[str], meta: Sequence[str] = (), labelled: Sequence[str] = ()
) -> pa.Schema:
    """The columns of PREDICTION that predictions per capture event are made of."""
    dropped = {"image_id", "image_uri", "image_index", "n_images"}
    dropped |= {of(head) for head in heads for of in (pred_column, score_column)}
    whole = prediction_schema(heads, meta, labelled)
    return pa.schema(field for field in whole if field.name not in dropped)


def event_prediction_schema(
    heads: Sequence[str],
    meta: Sequence[str] = (),
    labelled: Sequence[str] = (),
    *,
    is_top: bool = False,
) -> pa.Schema:
    """Predictions per capture event; the heads' predictions are null where all its images failed.

    Args:
        meta: metadata fields, without prefix.
        labelled: heads for which the source gives labels.
        is_top: each head has its best classes only, instead of all probabilities.
    """
    return pa.schema(
        [
            pa.field("capture_event_id", pa.string(), nullable=False),
            pa.field("n_images", pa.int32(), nullable=False),
            pa.field("n_failed", pa.int32(), nullable=False),
            pa.field("location_id", pa.string()),
            pa.field("deployment_id", pa.string()),
            pa.field("captured_at", pa.timestamp("us")),  # time of the event's first dated image
            *(pa.field(meta_column(field), pa.string()) for field in meta),
            *_label_fields(labelled),
            *_event_head_fields(heads, is_top=is_top),
        ]
    )


def failure_schema() -> pa.Schema:
    """The failures table: one row per image that could not be processed."""
    return pa.schema([*_IMAGE_FIELDS[:4], pa.field("failure", pa.string(), nullable=False)])


def conform(table: pa.Table, schema: pa.Schema, *, where: str) -> pa.Table:
    """The table with exactly the columns of the schema, in its order and with its types.

    Other columns are dropped.

    Args:
        where: names the table in error messages.

    Raises:
        SchemaError: a column is missing, cannot be cast, or holds nulls although the schema forbids
            them.
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
