"""`ctc demo`: the whole pipeline in a few minutes, through the code of the other commands.

in:  drawn scenes, or the user's class folders
out: scenes/, inventory/, dataset/, model/, predictions/, export/ and _manifest.json
"""

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.config.demo import DemoConfig
from ctc_ray.config.inventory import CsvInventoryConfig, DirInventoryConfig
from ctc_ray.config.model import ModelConfig
from ctc_ray.config.optimization import OptimizerConfig, ScheduleConfig
from ctc_ray.config.prediction import ExportConfig, PredictConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.output_folder import open_run
from ctc_ray.scenes.scenes import write_scenes
from ctc_ray.schemas import label_column, pred_column
from ctc_ray.splits.assign import assign_splits
from ctc_ray.stages import export
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.train import stage as train

logger = logging.getLogger(__name__)

_N_EVENTS, _N_LOCATIONS = 360, 24
_SCENES = "scenes"
_SPLITS_TRIED = 100
_FRACTIONS = {"train": 0.6, "val": 0.15, "test": 0.25}


def run(config: DemoConfig) -> Manifest:
    """Draw the scenes, run every stage, and compare the predictions with the labels."""
    config = config.replaced(output_uri=storage.absolute(config.output_uri))
    fields = {**config.result_fields(), "inputs": {config.images: ""} if config.images else {}}
    with open_run(config.output_uri, "demo", fields, overwrite=config.overwrite) as run:
        if isinstance(run, Manifest):
            return run
        return run.finish(_run_stages(config))


def _run_stages(config: DemoConfig) -> Manifest:
    seconds: dict[str, float] = {}
    heads = _make_inventory(config, seconds)
    uri = {
        name: storage.join(config.output_uri, name)
        for name in ("inventory", "dataset", "model", "predictions", "export")
    }
    dataset_config = CreateDatasetConfig(
        inventory_uri=uri["inventory"],
        output_uri=uri["dataset"],
        heads=heads,
        image_root_uri=None if config.images else storage.join(config.output_uri, _SCENES),
        observations="drop",
        split=_split(config, uri["inventory"]),
        images_per_unit=200,
        max_failure_fraction=0.5,
    )
    dataset = _timed(seconds, "create-dataset", lambda: create_dataset.run(dataset_config))
    train_config = _train_config(config, heads, uri["dataset"], uri["model"])
    _timed(seconds, "train", lambda: train.run(train_config))
    predict_config = PredictConfig(
        bundle_uri=uri["model"],
        output_uri=uri["predictions"],
        dataset_uri=uri["dataset"],
        split="test",
        export=("csv", "json"),
        max_failure_fraction=0.5,
    )
    _timed(seconds, "predict", lambda: predict.run(predict_config))
    export_config = ExportConfig(bundle_uri=uri["model"], output_uri=uri["export"])
    _timed(seconds, "export", lambda: export.run(export_config))
    return Manifest(
        kind="demo",
        config=config.result_fields(),
        rows_in=dataset.rows_in,
        rows_out=dataset.rows_out,
        failures=dataset.failures,
        classes=dataset.classes,
        summary=_summary(config, dataset, uri, seconds),
    )


def _split(config: DemoConfig, inventory_uri: str) -> SplitConfig:
    """A split by location; of the user's images by hash, so that no part lacks images or classes.

    Raises:
        ConfigError: there are too few images.
    """
    if config.images is None:
        return SplitConfig(by="location", fractions=_FRACTIONS)
    rows = parquet.read_folder(inventory_uri, ["capture_event_id", "location_id", "observations"])
    labels = pc.struct_field(pc.list_flatten(rows["observations"]), "class")  # one per image
    n_classes = pc.count_distinct(labels).as_py()
    for salt in map(str, range(_SPLITS_TRIED)):
        split = SplitConfig(by="event", fractions=_FRACTIONS, salt=salt)
        splits = assign_splits(rows, by=split.by, fractions=_FRACTIONS, salt=salt)
        n_trained = pc.count_distinct(labels.filter(pc.equal(splits, "train"))).as_py()
        if len(pc.unique(splits)) == len(_FRACTIONS) and n_trained == n_classes:
            return split
    raise ConfigError(
        f"{config.images}: {rows.num_rows} images are too few for a training, a validation and a "
        "test part with every class in training; give several of each class"
    )


def _timed(seconds: dict[str, float], name: str, stage: Callable[[], Manifest]) -> Manifest:
    began = time.perf_counter()
    manifest = stage()
    seconds[name] = round(time.perf_counter() - began, 1)
    return manifest


def _make_inventory(config: DemoConfig, seconds: dict[str, float]) -> tuple[str, ...]:
    """Write the inventory; the heads to learn."""
    output_uri = storage.join(config.output_uri, "inventory")
    if config.images is not None:
        source = DirInventoryConfig(source_uri=config.images, output_uri=output_uri)
        _timed(seconds, "create-inventory", lambda: create_inventory.run(source))
        return ("class",)
    began = time.perf_counter()
    folder = storage.join(config.output_uri, _SCENES)
    csv_path = write_scenes(
        folder, n_events=_N_EVENTS, n_locations=_N_LOCATIONS, seed=config.seed
    ).csv_uri
    seconds["draw scenes"] = round(time.perf_counter() - began, 1)
    scenes = CsvInventoryConfig(
        source_uri=csv_path,
        output_uri=output_uri,
        event_column="event",
        image_columns=("image1", "image2", "image3"),
        head_columns=("species", "count"),
        meta_columns=("night",),
        location_column="location",
    )
    _timed(seconds, "create-inventory", lambda: create_inventory.run(scenes))
    return ("species", "count")


def _train_config(
    config: DemoConfig, heads: tuple[str, ...], dataset_uri: str, output_uri: str
) -> TrainConfig:
    return TrainConfig(
        dataset_uri=dataset_uri,
        output_uri=output_uri,
        heads=heads,
        loss_weights={"count": 0.3} if "count" in heads else {},
        model=ModelConfig(image_size=config.image_size),
        optimizer=OptimizerConfig(learning_rate=0.003, backbone_rate=1.0, weight_decay=0.01),
        schedule=ScheduleConfig(name="cosine"),
        batch_size=32,
        max_epochs=config.max_epochs,
        early_stopping_patience=0,
        image_choice="all",
        seed=config.seed,
    )


def _summary(
    config: DemoConfig, dataset: Manifest, uri: dict[str, str], seconds: dict[str, float]
) -> dict[str, Any]:
    splits = {split.split: split for split in dataset.splits}
    where = "test events" if config.images else "locations never trained on"
    accuracy = [
        {"head": head, **_accuracy(uri, head)} for head in dataset.classes if "test" in splits
    ]
    return {
        "events": sum(split.events for split in splits.values()),
        "results": config.output_uri,
        "run next": f"{_command()} predict --bundle-uri {uri['model']} --images-uri YOUR/IMAGES "
        "--output-uri predictions --export csv",
        f"accuracy on {where}": accuracy,
        "seconds per stage": [{"stage": name, "seconds": s} for name, s in seconds.items()],
    }


def _command() -> str:
    """How the user's shell finds this command."""
    return "ctc" if shutil.which("ctc") else os.path.relpath(Path(sys.executable).parent / "ctc")


def _accuracy(uri: dict[str, str], head: str) -> dict[str, Any]:
    """Shares of images and of events that are right, among those labelled and answered."""
    label, pred = label_column(head), pred_column(head)
    shards = parquet.read_folder(
        storage.join(uri["dataset"], "split=test"), ["image_id", "capture_event_id", label]
    )
    answers = uri["predictions"]
    images = parquet.read_folder(storage.join(answers, "images"), ["image_id", pred])
    events = parquet.read_folder(storage.join(answers, "events"), ["capture_event_id", pred])
    by_event = shards.group_by("capture_event_id").aggregate([(label, "max")])
    by_event = by_event.rename_columns(["capture_event_id", label])
    n_images, right_images = _share_right(shards.join(images, "image_id"), label, pred)
    n_events, right_events = _share_right(by_event.join(events, "capture_event_id"), label, pred)
    return {
        "images": n_images,
        "per image": right_images,
        "events": n_events,
        "per event": right_events,
    }


def _share_right(rows: pa.Table, label: str, pred: str) -> tuple[int, float]:
    rows = rows.filter(pc.and_(pc.is_valid(rows[label]), pc.is_valid(rows[pred])))
    right = pc.sum(pc.equal(rows[label], rows[pred])).as_py() or 0
    return rows.num_rows, round(right / max(1, rows.num_rows), 3)
