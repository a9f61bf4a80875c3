"""A sheet of what training sees: images of a dataset, without and with the random changes."""

from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from ctc_ray.columns.seeds import stable_hash
from ctc_ray.config.base import build, merge, read_yaml
from ctc_ray.config.keys import option_name
from ctc_ray.config.model import InputConfig
from ctc_ray.config.show import MAX_SHEET_PIXELS, ShowConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.models.starting_weights import backbone_to_begin_with
from ctc_ray.reports.contact_sheet import Tile, contact_sheet
from ctc_ray.runs.manifest import Manifest
from ctc_ray.selection.samples import stratified_sample
from ctc_ray.stages.show.sample import candidates, head_of, read_jpegs
from ctc_ray.stages.train.pixels import decode, seen_in_epoch


def draw(config: ShowConfig, uri: str, manifest: Manifest) -> dict[str, Any]:
    """Write the sheet; where it is, and what is on it, as JSON values."""
    if manifest.kind != "dataset":
        raise ConfigError(f"--augmented: {uri} holds {manifest.kind}; give the folder of a dataset")
    train = _train_config(config, uri, manifest)
    size = _image_size(train.model)
    n_tiles = config.rows * (1 + config.epochs)
    if n_tiles * size**2 > MAX_SHEET_PIXELS:
        raise ConfigError(
            f"--augmented: {n_tiles} images of {size} pixels are too large a sheet; use fewer "
            "--rows or --epochs"
        )
    rows = _chosen(config, uri, manifest, train)
    jpegs = read_jpegs(uri, rows, lambda _, raw: raw or b"")
    by_id = {row["image_id"]: raw for row, raw in zip(rows, jpegs, strict=True)}
    aspect = train.model.keep_aspect
    evaluated = partial(decode, image_size=size, keep_aspect=aspect, settings=None, linear=False)
    in_epoch = partial(
        seen_in_epoch,
        by_id,
        seed=train.seed,
        settings=train.augment,
        image_size=size,
        keep_aspect=aspect,
    )
    columns = [[evaluated(raw, 0) for raw in jpegs], *map(in_epoch, range(config.epochs))]
    names = [["as validation sees it"], *([f"epoch {n + 1}"] for n in range(config.epochs))]
    tiles = [
        Tile(Image.fromarray(column[index]), [row["class"] or "(not labelled)", *name])
        for index, row in enumerate(rows)
        for column, name in zip(columns, names, strict=True)
    ]
    sheet_uri = storage.absolute(config.augmented or "")
    storage.write_bytes(sheet_uri, contact_sheet(tiles, columns=len(columns), side=size))
    return {"augmented": sheet_uri, "augmented_images": len(rows), "image_size": size}


def _train_config(config: ShowConfig, uri: str, manifest: Manifest) -> TrainConfig:
    """The training of this dataset with the settings that were given."""
    values = merge(read_yaml(config.config) if config.config else {}, config.given_to_train())
    values = {
        "output_uri": "-",
        "heads": list(manifest.classes) or ["none"],
        **values,
        "dataset_uri": uri,
        "val_splits": ["-"],  # a sheet measures nothing
    }
    where = config.config or "show"
    return build(TrainConfig, values, where=where, spelt=str if config.config else option_name)


def _image_size(model: InputConfig) -> int:
    """Width and height of the network's input in pixels."""
    if model.image_size is not None:
        return model.image_size
    pretrained = model.pretrained if isinstance(model.pretrained, str) else False  # no download
    backbone, _ = backbone_to_begin_with(model.backbone, pretrained=pretrained, image_size=None)
    return backbone.image_size


def _chosen(
    config: ShowConfig, uri: str, manifest: Manifest, train: TrainConfig
) -> list[dict[str, Any]]:
    """Images of the splits that are learnt from, in turn from each class."""
    shards = [shard for shard in manifest.shards if shard.split in train.train_splits]
    of_train = manifest.model_copy(update={"shards": shards})
    found = candidates(uri, of_train, head_of(config, manifest))
    found = found.filter(pc.is_null(found["failure"]))
    if not found.num_rows:
        names, known = ", ".join(train.train_splits), {shard.split for shard in manifest.shards}
        raise ConfigError(
            f"--augmented: {uri} has no usable image in the split {names}; splits are "
            f"{', '.join(sorted(known))} (set --train-splits)"
        )
    draws = [
        f"{stable_hash(image_id, train.seed, 0):016x}" for image_id in found["image_id"].to_pylist()
    ]
    found = found.append_column("draw", pa.array(draws))
    rows: list[dict[str, Any]] = stratified_sample(
        found, config.rows, over=["class"], by="draw"
    ).to_pylist()
    return rows
