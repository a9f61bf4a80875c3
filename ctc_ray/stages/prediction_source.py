"""Where the images of `ctc predict` come from: a folder, a csv, an inventory, or a dataset.

A helper of that stage: rows to plan by, and for each row of a plan the bytes of its image.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray import storage
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError
from ctc_ray.inventory.csv_source import CsvColumns, column_names, read_csv
from ctc_ray.inventory.images_source import read_images
from ctc_ray.manifest import fingerprint, manifest_fingerprint, read_manifest
from ctc_ray.schemas import META_PREFIX, Failure, conform, image_fields, meta_columns
from ctc_ray.stages import runtime

_SHARD = "_shard"  # column of a plan: where an image lies that comes from a dataset


def read_rows(config: PredictConfig) -> pa.Table:
    """The images to answer for, an event's images as neighbours."""
    if config.dataset_uri is not None:
        return _shard_rows(config.dataset_uri, config.split)
    if config.inventory_uri is not None:
        read_manifest(config.inventory_uri, "inventory")
        table = storage.read_folder(config.inventory_uri)
    elif config.csv_uri is not None:
        table = read_csv(config.csv_uri, _csv_columns(config)).table
    else:
        table = read_images(config.images_uri or "").table
    if table.num_rows == 0:
        raise ConfigError("there is no image to predict")
    return conform(table, pa.schema(image_fields(meta_fields(table))), where="predict")


def _csv_columns(config: PredictConfig) -> CsvColumns:
    used = {config.event_column, *config.image_columns}
    return CsvColumns(
        event_column=config.event_column or "",
        image_columns=config.image_columns,
        meta_columns=tuple(n for n in column_names(config.csv_uri or "") if n not in used),
    )


def _shard_rows(dataset_uri: str, split: str | None) -> pa.Table:
    """The rows of the shards without their images, and the shard where each image lies."""
    manifest = read_manifest(dataset_uri, "dataset")
    splits = sorted({shard["split"] for shard in manifest.shards})
    if split is not None and split not in splits:
        raise ConfigError(
            f"split: {dataset_uri} has no split {split!r}; splits are {', '.join(splits)}"
        )
    schema = pa.schema([*image_fields(manifest.meta), pa.field("failure", pa.string())])
    tables = []
    for shard in manifest.shards:
        if split in (None, shard["split"]):
            uri = storage.join(dataset_uri, shard["path"])
            rows = storage.read_table(uri, schema.names).cast(schema)
            tables.append(rows.append_column(_SHARD, pa.array([uri] * rows.num_rows)))
    return pa.concat_tables(tables)


def fingerprints(config: PredictConfig, rows: pa.Table) -> dict[str, str]:
    """The URI of the source, and a fingerprint that changes with its content."""
    if config.images_uri is not None:
        return {config.images_uri: fingerprint(rows["image_uri"].to_pylist())}
    if config.csv_uri is not None:
        return {config.csv_uri: storage.digest(config.csv_uri)}
    folder = config.inventory_uri or config.dataset_uri or ""
    return {folder: manifest_fingerprint(folder)}


def meta_fields(rows: pa.Table) -> list[str]:
    """The metadata fields of the source, without prefix."""
    return [name.removeprefix(META_PREFIX) for name in meta_columns(rows.schema)]


def image_columns(rows: pa.Table) -> list[str]:
    """The columns of a plan that go into the predictions."""
    return [name for name in rows.column_names if name not in (_SHARD, "failure")]


def read_images_of(config: PredictConfig, rows: pa.Table) -> Iterator[bytes | Failure]:
    """The bytes of each row's image in order, or why there are none."""
    if _SHARD in rows.column_names:
        return _from_shards(rows)
    uris = [storage.under_root(config.image_root_uri, u) for u in rows["image_uri"].to_pylist()]
    return runtime.read_ahead(uris, config.threads_per_task)


def _from_shards(rows: pa.Table) -> Iterator[bytes | Failure]:
    for shard in pc.unique(rows[_SHARD]).to_pylist():  # in the order of the rows
        jpegs = storage.read_table(shard, ["image_id", "jpeg", "failure"])
        wanted = rows.filter(pc.equal(rows[_SHARD], shard))["image_id"].to_pylist()
        place = {image_id: i for i, image_id in enumerate(jpegs["image_id"].to_pylist())}
        for image_id in wanted:
            failure = jpegs["failure"][place[image_id]].as_py()
            yield Failure(failure) if failure else jpegs["jpeg"][place[image_id]].as_py()
