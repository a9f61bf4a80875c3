"""Where the images of `ctc predict` come from: a folder, a csv, an inventory, or a dataset.

Rows to plan by, and the decoded batches of a unit. The rows of an inventory or a dataset are read
part by part; a folder or a csv is in memory as a whole.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import IMAGES_PER_STACK, cut_at_starts, cut_by_events, run_starts
from ctc_ray.columns.fingerprints import table_fingerprint
from ctc_ray.columns.threads import map_ahead
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError, LabelError
from ctc_ray.files import parquet, storage
from ctc_ray.files.image_uris import image_uri, require_reachable, rows_to_look_for
from ctc_ray.files.prefetch import FileContent, prefetch_files
from ctc_ray.files.versions import versions_of
from ctc_ray.images.decode import Pixels
from ctc_ray.images.resize import to_input
from ctc_ray.images.stacking import stack_frames
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.csv_source import CsvColumns, column_names, read_csv
from ctc_ray.labels import LabelSpace
from ctc_ray.observations import head_names
from ctc_ray.runs.finished_inventory import find_rows
from ctc_ray.runs.manifest import manifest_fingerprint, read_manifest
from ctc_ray.schemas import (
    Failure,
    conform,
    image_fields,
    label_column,
    labelled_heads,
    meta_fields,
    planned_schema,
)
from ctc_ray.selection.labelling import agreed_labels
from ctc_ray.stages.create_inventory.image_folder import digest_of_corrections, read_image_folder

_HEADERS_AT_ONCE = 32  # files of which only the beginning is read
_OF_SHARD_AT_ONCE = 8  # images that are decoded by a thread one after the other
_SHARD = "_shard"  # column of a plan: the shard that holds the image
VERSION = "_version"
"""Column beside the answers: the version of the file that was read; null: there was none."""


@dataclass(frozen=True)
class LabelledRows:
    """Images with the labels that the source gives, an event's images as neighbours."""

    rows: pa.Table
    n_ambiguous: Mapping[str, int] = field(default_factory=dict)
    """Head -> events with several labels, which count as not labelled."""


@dataclass(frozen=True)
class Source:
    """What is to be answered, and what was found while it was read."""

    schema: pa.Schema
    """The columns of the images, each with the labels that the source gives."""
    n_images: int
    read_parts: Callable[[], Iterator[LabelledRows]]
    """Reads the images, a part at a time; the images of an event are neighbours, also from part to
    part."""
    uris_at: Callable[[npt.NDArray[np.int64]], list[str]]
    """The `image_uri` of some images, by their ascending numbers."""
    empty_events: LabelledRows | None = None
    """Events of a csv that name no image: id, location, metadata and labels."""
    findings: Findings = field(default_factory=Findings)

    def whole(self) -> LabelledRows:
        """All images in one table, and what is counted of all events."""
        parts, n_ambiguous = [], Counter[str]()
        for part in self.read_parts():
            parts.append(part.rows)
            n_ambiguous.update(part.n_ambiguous)
        if self.empty_events is not None:
            n_ambiguous.update(self.empty_events.n_ambiguous)
        return LabelledRows(pa.concat_tables(parts), n_ambiguous)


def read_source(config: PredictConfig, labels: LabelSpace) -> Source:
    """The images and events to answer for.

    Args:
        labels: of the model; labels of its heads are read, whatever their classes.

    Raises:
        ConfigError: there is no image.
        LabelError: `head_columns` names a head that the model does not have.
    """
    if config.dataset_uri is not None:
        return _shard_rows(config.dataset_uri, config.split, labels.heads)
    if config.inventory_uri is not None:
        return _inventory_rows(config.inventory_uri, labels.heads)
    if config.csv_uri is not None:
        found = read_csv(config.csv_uri, _csv_columns(config, labels))
    else:
        found = read_image_folder(config, config.images_uri or "", n_threads=_HEADERS_AT_ONCE)
    rows = _labelled(found.table, labels.heads)
    labelled = labelled_heads(rows.rows.schema, labels.heads)
    schema = planned_schema(labelled, meta_fields(rows.rows.schema))
    rows = replace(rows, rows=conform(rows.rows, schema, where="predict"))
    return Source(
        schema,
        _some(rows.rows.num_rows),
        lambda: iter([rows]),
        lambda numbers: rows.rows["image_uri"].take(pa.array(numbers)).to_pylist(),
        _labelled(found.empty_events, labels.heads),
        found.findings,
    )


def _some(n_images: int) -> int:
    if n_images == 0:
        raise ConfigError("there is no image to predict")
    return n_images


def _inventory_rows(inventory_uri: str, heads: Sequence[str]) -> Source:
    manifest = read_manifest(inventory_uri, "inventory")
    labelled = [head for head in heads if head in manifest.heads]
    schema = planned_schema(labelled, manifest.meta)
    columns = [field.name for field in image_fields(manifest.meta)]
    columns += ["observations"] if labelled else []
    inventory = find_rows(inventory_uri)

    def read_parts() -> Iterator[LabelledRows]:
        for rows in inventory.read_all(columns):
            part = _labelled(rows, heads)
            yield replace(part, rows=conform(part.rows, schema, where="predict"))

    return Source(
        schema,
        _some(inventory.n_rows),
        read_parts,
        lambda numbers: inventory.read(numbers, ["image_uri"])["image_uri"].to_pylist(),
    )


def _labelled(table: pa.Table, heads: Sequence[str]) -> LabelledRows:
    """Labels of the heads instead of `observations`.

    Args:
        table: images, or events without images.
    """
    n_ambiguous: dict[str, int] = {}
    if "observations" not in table.column_names:
        return LabelledRows(table)
    observations, table = table["observations"], table.drop_columns("observations")
    known = head_names(observations.type)
    for head in (head for head in heads if head in known):
        labels, several = agreed_labels(observations, head)
        table = table.append_column(label_column(head), labels)
        if "image_index" in table.column_names:
            several &= pc.equal(table["image_index"], 0).to_numpy()
        n_ambiguous[head] = int(several.sum())
    return LabelledRows(table, n_ambiguous)


def require_images(config: PredictConfig, found: Source) -> None:
    """Check that the images of a csv or an inventory are where the rows say, before work begins.

    Raises:
        ConfigError: of a few dozen images none is there.
    """
    if config.csv_uri or config.inventory_uri:
        require_reachable(
            found.uris_at(rows_to_look_for(found.n_images)),
            root_uri=config.image_root_uri,
            allow=config.allow_scheme,
            n_rows=found.n_images,
            may_be_missing=config.max_failure_fraction == 1,
        )


def _csv_columns(config: PredictConfig, labels: LabelSpace) -> CsvColumns:
    roles = CsvColumns(
        event_column=config.event_column or "",
        image_columns=config.image_columns,
        path_columns=config.path_columns,
        head_columns=config.head_columns,
        strip_prefix=config.strip_prefix,
    )
    unknown = [head for head in roles.heads if head not in labels.heads]
    if unknown:
        raise LabelError(
            f"--head-columns: {unknown[0]!r} is no head of the model, whose heads are "
            f"{', '.join(labels.heads)}; a column of another name: {labels.heads[0]}=column"
        )
    others = [name for name in column_names(config.csv_uri or "") if name not in roles.names()]
    return replace(roles, meta_columns=tuple(others))


def _shard_rows(dataset_uri: str, split: str | None, heads: Sequence[str]) -> Source:
    """The rows of the shards without their images, and the shard that holds each image."""
    manifest = read_manifest(dataset_uri, "dataset")
    splits = sorted({shard.split for shard in manifest.shards})
    if split is not None and split not in splits:
        raise ConfigError(
            f"split: {dataset_uri} has no split {split!r}; splits are {', '.join(splits)}"
        )
    labelled = [head for head in heads if head in manifest.heads]
    planned = planned_schema(labelled, manifest.meta)
    stored = pa.schema([*planned, pa.field("failure", pa.string())])
    shards = [shard for shard in manifest.shards if split in (None, shard.split)]

    def read_parts() -> Iterator[LabelledRows]:
        for shard in shards:
            uri = storage.join(dataset_uri, shard.path)
            rows = parquet.read_table(uri, stored.names).cast(stored)
            yield LabelledRows(rows.append_column(_SHARD, pa.array([uri] * rows.num_rows)))

    return Source(
        pa.schema([*stored, pa.field(_SHARD, pa.string())]),
        _some(sum(shard.n_images for shard in shards)),
        read_parts,
        lambda _: [],  # its images are in the shards
    )


def fingerprints(config: PredictConfig, found: Source) -> dict[str, str]:
    """The URI of the source, and a fingerprint that changes with its content."""
    if config.images_uri is not None:
        names = ["image_uri", "capture_event_id", "captured_at", "location_id", "deployment_id"]
        of_folder = table_fingerprint(found.whole().rows.select(names))
        return {config.images_uri: of_folder, **digest_of_corrections(config)}
    if config.csv_uri is not None:
        return {config.csv_uri: storage.digest(config.csv_uri)}
    folder = config.inventory_uri or config.dataset_uri or ""
    return {folder: manifest_fingerprint(folder)}


def image_columns(rows: pa.Table) -> list[str]:
    """The columns of a plan that go into the predictions."""
    return [name for name in rows.column_names if not name.startswith("_") and name != "failure"]


def read_images_of(config: PredictConfig, rows: pa.Table) -> Iterator[list[FileContent]]:
    """Each row's image in order, or why there is none, a few at a time; see `prefetch_files`.

    An image in a shard has the version of the shard.
    """
    if _SHARD in rows.column_names:
        images = map(FileContent, _from_shards(rows), versions_now(config, rows).to_pylist())
        return iter(lambda: list(itertools.islice(images, _OF_SHARD_AT_ONCE)), [])
    return prefetch_files(_uris(config, rows), config.threads_per_task)


def _uris(config: PredictConfig, rows: pa.Table) -> list[str | Failure]:
    root, allow = config.image_root_uri, config.allow_scheme
    return [image_uri(root, uri, allow=allow) for uri in rows["image_uri"].to_pylist()]


def versions_now(config: PredictConfig, rows: pa.Table) -> pa.Array:
    """The version that the file of each row has now, that of its shard for what lies in one.

    Null: there is no such file. Of a shard, the footer is read.

    Raises:
        OSError: nothing is known about a file.
    """
    if _SHARD in rows.column_names:
        shards = rows[_SHARD].combine_chunks().dictionary_encode()
        with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
            versions = list(pool.map(parquet.footer_digest, shards.dictionary.to_pylist()))
        return pa.array(versions, pa.string()).take(shards.indices)
    uris = [None if isinstance(uri, Failure) else uri for uri in _uris(config, rows)]
    return pa.array(versions_of(uris, n_threads=_HEADERS_AT_ONCE), pa.string())


def _from_shards(rows: pa.Table) -> Iterator[bytes | Failure]:
    for shard in pc.unique(rows[_SHARD]).to_pylist():  # in the order of the rows
        jpegs = parquet.read_table(shard, ["image_id", "jpeg", "failure"])
        wanted = rows.filter(pc.equal(rows[_SHARD], shard))["image_id"].to_pylist()
        row_of = {image_id: i for i, image_id in enumerate(jpegs["image_id"].to_pylist())}
        for image_id in wanted:
            failure = jpegs["failure"][row_of[image_id]].as_py()
            yield Failure(failure) if failure else jpegs["jpeg"][row_of[image_id]].as_py()


@dataclass(frozen=True)
class DecodedBatch:
    """Rows of images, and what the network sees of them: M images."""

    rows: pa.Table
    """They have their image's `failure`, and the `VERSION` of the file that was read."""
    pixels_MSSC: npt.NDArray[np.uint8]  # noqa: N815  # shape letters
    """RGB. The image of each row without a failure, or one stack of the first usable images of
    each event."""
    n_rows_M: npt.NDArray[np.int64]  # noqa: N815  # shape letters
    """Rows without a failure, neighbours among them, that each is the answer for."""


def decode_batches(
    config: PredictConfig,
    rows: pa.Table,
    *,
    image_size: int,
    keep_aspect: bool,
    is_stack: bool,
    n_threads: int,
) -> Iterator[DecodedBatch]:
    """Batches of `images_at_once` rows in their order. A batch of stacks holds whole events."""

    def decode(file: FileContent) -> tuple[Pixels | Failure, str | None]:
        if isinstance(file.raw, Failure):
            return file.raw, file.version
        pixels = to_input(
            file.raw,
            image_size=image_size,
            keep_aspect=keep_aspect,
            max_pixels=config.max_pixels,
            truncated=config.truncated,
        )
        return pixels, file.version

    def decode_all(group: list[FileContent]) -> list[tuple[Pixels | Failure, str | None]]:
        return [decode(file) for file in group]

    groups = map_ahead(decode_all, read_images_of(config, rows), n_threads=n_threads)
    images = itertools.chain.from_iterable(groups)
    cuts = (
        cut_by_events(rows["capture_event_id"], config.images_at_once)
        if is_stack
        else cut_at_starts(np.arange(rows.num_rows), rows.num_rows, config.images_at_once)
    )
    for start, stop in cuts:
        part = rows.slice(start, stop - start)
        decoded = list(itertools.islice(images, part.num_rows))
        failures = [item.value if isinstance(item, Failure) else None for item, _ in decoded]
        pixels = [item for item, _ in decoded if not isinstance(item, Failure)]
        n_rows_M = np.ones(len(pixels), np.int64)
        if is_stack:
            usable = pa.array([failure is None for failure in failures], pa.bool_())
            starts = run_starts(part["capture_event_id"].filter(usable))
            n_rows_M = np.diff(starts, append=len(pixels))
            pixels = [
                stack_frames(pixels[at : at + min(n, IMAGES_PER_STACK)])
                for at, n in zip(starts, n_rows_M, strict=True)
            ]
        empty = np.zeros((0, image_size, image_size, 3), np.uint8)
        versions = [version for _, version in decoded]
        part = part.select(image_columns(part))
        part = part.append_column("failure", pa.array(failures, pa.string()))
        part = part.append_column(VERSION, pa.array(versions, pa.string()))
        yield DecodedBatch(part, np.stack(pixels) if pixels else empty, n_rows_M)
