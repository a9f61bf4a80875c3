"""The work of one unit of `ctc create-dataset`: images are read, decoded, resized and encoded."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from ctc_ray import __version__
from ctc_ray.columns.event_runs import cut_by_events
from ctc_ray.columns.threads import map_ahead
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.files import parquet
from ctc_ray.files.image_uris import image_uri
from ctc_ray.files.prefetch import FileContent, prefetch_files
from ctc_ray.images.resize import ShardImage, to_shard_jpeg
from ctc_ray.runs.finished_inventory import InventoryRows
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.unit_worker import UnitOutput, UnitWorker
from ctc_ray.runs.units import Unit, read_unit
from ctc_ray.schemas import SCHEMA_VERSION, Failure, conform, shard_schema
from ctc_ray.stages.create_dataset import footers
from ctc_ray.stages.create_dataset.plan import whole_rows

IMAGES_PER_ROW_GROUP = 128  # about 4 MB of JPEG: what a training worker reads at once
_ABOUT_KEY = "ctc_dataset"  # of a shard's footer
_MOMENTS = pa.field("_moments", pa.list_(pa.int64(), 6))  # of answers, until they are added up


@dataclass(frozen=True)
class ShardMaker:
    """Makes shards of planned rows; can be pickled."""

    config: CreateDatasetConfig
    inventory: InventoryRows
    meta: tuple[str, ...]
    about: str
    """What every shard says of itself in its footer; see `about_dataset`."""

    def make_worker(self, n_threads: int) -> UnitWorker:
        """A worker that decodes with this many threads."""
        return _ShardWorker(self, n_threads)


@dataclass(frozen=True)
class _ShardWorker:
    """A worker of `ctc create-dataset`."""

    maker: ShardMaker
    n_threads: int

    def read(self, unit: Unit) -> pa.Table:
        """The planned rows, with all columns of the inventory."""
        maker = self.maker
        maker.inventory.require_unchanged()
        waiting = read_unit(maker.config.output_uri, unit)
        return whole_rows(waiting, maker.inventory, maker.config.heads, maker.meta)

    def answer(self, rows: pa.Table) -> pa.Table:
        """Rows of a shard, and the moments of their pixels."""
        return self._with(rows, decode_rows(self.maker.config, rows, n_threads=self.n_threads))

    def fail(self, rows: pa.Table, failure: Failure) -> pa.Table:
        """Rows of a shard whose images all have this failure."""
        return self._with(rows, [failure] * rows.num_rows)

    def _with(self, rows: pa.Table, images: Sequence[ShardImage | Failure]) -> pa.Table:
        schema = shard_schema(self.maker.config.heads, self.maker.meta).append(_MOMENTS)
        return conform(_with_images(rows, images), schema, where="shard")

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        """The shard."""
        pixels = footers.footer_pixels(answers[_MOMENTS.name])
        answers = answers.drop_columns([_MOMENTS.name])
        cuts = cut_by_events(answers["capture_event_id"], IMAGES_PER_ROW_GROUP)
        groups = [answers.slice(start, stop - start) for start, stop in cuts]
        counts = footers.footer_counts(groups, self.maker.config.heads)
        metadata = {_ABOUT_KEY: self.maker.about, **counts, **pixels}
        content = parquet.row_group_bytes(groups, metadata=metadata, raw_column="jpeg")
        n_failed = answers.num_rows - answers["failure"].null_count
        return UnitOutput({unit.name: content}, answers.num_rows, n_failed)


def about_dataset(config: CreateDatasetConfig, manifest: Manifest) -> str:
    """What a shard says of itself, as JSON, so that it is understood without its dataset."""
    return json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "ctc_version": __version__,
            "inventory_fingerprint": manifest.inputs[config.inventory_uri],
            "resize": config.resize.model_dump(mode="json"),
            "heads": list(manifest.classes),
            "classes": manifest.classes,
        },
        ensure_ascii=False,
    )


def decode_rows(
    config: CreateDatasetConfig, rows: pa.Table, *, n_threads: int = 1
) -> list[ShardImage | Failure]:
    """The images of the rows as a shard holds them, in the order of the rows."""
    root, allow = config.image_root_uri, config.allow_scheme
    uris = [image_uri(root, uri, allow=allow) for uri in rows["image_uri"].to_pylist()]
    groups = prefetch_files(uris, config.threads_per_task)
    made = map_ahead(partial(_to_shard, config), groups, n_threads=n_threads)
    return list(itertools.chain.from_iterable(made))


def _to_shard(
    config: CreateDatasetConfig, group: Sequence[FileContent]
) -> list[ShardImage | Failure]:
    return [_to_shard_image(config, file.raw) for file in group]


def _to_shard_image(config: CreateDatasetConfig, raw: bytes | Failure) -> ShardImage | Failure:
    if isinstance(raw, Failure):
        return raw
    return to_shard_jpeg(
        raw,
        smallest_side=config.resize.smallest_side,
        quality=config.resize.quality,
        max_pixels=config.max_pixels,
        truncated=config.truncated,
        reencode_small=config.resize.reencode_small,
    )


def _with_images(rows: pa.Table, images: Sequence[ShardImage | Failure]) -> pa.Table:
    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([getattr(image, name, None) for image in images], kind)

    failures = [image.value if isinstance(image, Failure) else None for image in images]
    return (
        rows.append_column("jpeg", column("jpeg", pa.binary()))
        .append_column("width", column("width", pa.int32()))
        .append_column("height", column("height", pa.int32()))
        .append_column("failure", pa.array(failures, pa.string()))
        .append_column(_MOMENTS, column("moments", _MOMENTS.type))
    )
