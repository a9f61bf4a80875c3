"""The original's own end-to-end case, real bursts and malformed files, through the stages."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from builders import trashnet_config, trashnet_dataset
from one_answer import differences, photographs

from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.config.model import ModelConfig
from ctc_ray.config.optimization import OptimizerConfig
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.files import parquet
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.train import stage as train

pytestmark = [pytest.mark.ray, pytest.mark.real_data, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def original(local_ray: None, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inventory, dataset and model of cats_vs_dogs_multi.csv, trained for a few epochs."""
    folder = tmp_path_factory.mktemp("original")
    files = shared_data / "annotations" / "camera_trap_classifier_test_files"
    heads = ("species", "standing", "count")
    create_inventory.run(
        CsvInventoryConfig(
            source_uri=str(files / "cats_vs_dogs_multi.csv"),
            output_uri=str(folder / "inventory"),
            event_column="id",
            image_columns=("image",),
            head_columns=heads,
        )
    )
    create_dataset.run(
        CreateDatasetConfig(
            inventory_uri=str(folder / "inventory"),
            output_uri=str(folder / "dataset"),
            heads=heads,
            image_root_uri=str(shared_data / "labelled" / "cats_dogs"),
            split=SplitConfig(fractions={"train": 0.7, "val": 0.15, "test": 0.15}),
        )
    )
    train.run(
        TrainConfig(
            dataset_uri=str(folder / "dataset"),
            output_uri=str(folder / "model"),
            heads=heads,
            loss_weights={"species": 1, "standing": 0.5, "count": 0.2},
            batch_size=16,
            max_epochs=2,
        )
    )
    return folder


def test_split_of_the_original_bit_for_bit(original: Path, shared_data: Path) -> None:
    goldens = json.loads((shared_data.parent / "reference" / "goldens.json").read_text())
    for split, ids in goldens["multi_csv"]["split_70_15_15"].items():
        rows = parquet.read_folder(str(original / "dataset" / f"split={split}"))
        assert sorted(rows["capture_event_id"].to_pylist()) == sorted(ids)


def test_every_row_of_the_original_is_there_and_two_files_are_missing(original: Path) -> None:
    manifest = read_manifest(str(original / "dataset"), "dataset")
    assert (manifest.rows_in, manifest.rows_out) == (119, 119)
    assert manifest.failures == {"missing": 2}
    failures = parquet.read_table(str(original / "dataset" / "_failures.parquet"))
    assert sorted(failures["capture_event_id"].to_pylist()) == ["dog3200.jpg", "dog3203.jpg"]


def test_class_mapping_is_the_originals(original: Path, shared_data: Path) -> None:
    goldens = json.loads((shared_data.parent / "reference" / "goldens.json").read_text())
    classes = read_manifest(str(original / "model"), "bundle").classes
    for head, mapping in goldens["multi_csv"]["label_map"].items():
        assert {name: index for index, name in enumerate(classes[head])} == mapping


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_multi_image_events_are_answered_in_the_originals_formats(
    original: Path, shared_data: Path, tmp_path: Path, aggregation: str
) -> None:
    files = shared_data / "annotations" / "camera_trap_classifier_test_files"
    predict.run(
        PredictConfig.model_validate(
            {
                "bundle_uri": str(original / "model"),
                "output_uri": str(tmp_path / "out"),
                "csv_uri": str(files / "cats_vs_dogs_multi_image.csv"),
                "event_column": "id",
                "image_columns": ("image1", "image2", "image3"),
                "image_root_uri": str(shared_data / "labelled" / "cats_dogs"),
                "aggregation": aggregation,
                "export": ("csv", "json"),
            }
        )
    )
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    events = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(rows) == 4 * 3
    assert list(events) == ["cat0.jpg", "cat10.jpg", "dog1", "dog2"]
    assert [len(event["images"]) for event in events.values()] == [3, 3, 1, 3]
    combine = max if aggregation == "max" else lambda values: sum(values) / len(values)
    for row in rows:
        event = events[row["id"]]
        probs = event["aggregated_pred"][row["label"]]
        for name, value in probs.items():
            parts = [float(i["predictions"][row["label"]][name]) for i in event["images"]]
            assert float(value) == pytest.approx(combine(parts), abs=2e-4)
        assert row["prediction_top"] == event["predictions_top"][row["label"]]


def burst_csv(shared_data: Path, path: Path) -> Path:
    """17 events of 3 originals each, from the list of bursts."""
    bursts = shared_data / "photos" / "peru_bursts" / "labels_by_eye.csv"
    with bursts.open(newline="") as file, path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["event", "image1", "image2", "image3", "label"])
        for row in csv.DictReader(file):
            first = int(row["first_file"][2:-4])
            names = [f"{row['camera']}/EK{first + k:06d}.JPG" for k in range(int(row["frames"]))]
            writer.writerow([row["first_file"], *names, row["label"]])
    return path


def test_peru_bursts_are_51_images_in_17_events(
    original: Path, shared_data: Path, tmp_path: Path
) -> None:
    root = str(shared_data / "photos" / "peru_bursts" / "S90")
    create_inventory.run(
        CsvInventoryConfig(
            source_uri=str(burst_csv(shared_data, tmp_path / "bursts.csv")),
            output_uri=str(tmp_path / "inventory"),
            event_column="event",
            image_columns=("image1", "image2", "image3"),
            head_columns=("label",),
        )
    )
    dataset = create_dataset.run(
        CreateDatasetConfig(
            inventory_uri=str(tmp_path / "inventory"),
            output_uri=str(tmp_path / "dataset"),
            heads=("label",),
            image_root_uri=root,
        )
    )
    assert (dataset.rows_out, dataset.failures) == (51, {})
    assert sum(split.events for split in dataset.splits) == 17
    rows = parquet.read_folder(str(tmp_path / "dataset"), ["width", "height"])
    assert {(r["width"], r["height"]) for r in rows.to_pylist()} == {(533, 400)}
    made = predict.run(
        PredictConfig(
            bundle_uri=str(original / "model"),
            output_uri=str(tmp_path / "predictions"),
            inventory_uri=str(tmp_path / "inventory"),
            image_root_uri=root,
        )
    )
    assert (made.rows_out, made.summary["events"], made.failures) == (51, 17, {})


def expected_failures(shared_data: Path, *, keep: bool) -> dict[str, int]:
    """Count per code of MANIFEST.csv, `too_large` and `unsupported` counted as rejected."""
    with (shared_data / "malformed" / "MANIFEST.csv").open(newline="") as file:
        expected = [row["expected"] for row in csv.DictReader(file)]
    partial = sum(value.startswith("partial") for value in expected)
    rejected = sum(value == "must be rejected" for value in expected)
    return {"truncated": 0 if keep else partial, "rejected": rejected}


@pytest.mark.parametrize("truncated", ["fail", "keep"])
def test_178_malformed_files_give_178_rows(
    local_ray: None, shared_data: Path, tmp_path: Path, truncated: str
) -> None:
    root = shared_data / "malformed"
    files = [path.relative_to(root) for path in root.glob("*/**/*") if path.is_file()]
    with (tmp_path / "files.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "class"), *((str(f), f.parts[0]) for f in files)])
    inventory = CsvInventoryConfig(
        source_uri=str(tmp_path / "files.csv"),
        output_uri=str(tmp_path / "inventory"),
        event_column="id",
        image_columns=("id",),
        head_columns=("class",),
    )
    assert create_inventory.run(inventory).rows_out == 178
    manifest = create_dataset.run(
        CreateDatasetConfig.model_validate(
            {
                "inventory_uri": str(tmp_path / "inventory"),
                "output_uri": str(tmp_path / "dataset"),
                "heads": ("class",),
                "image_root_uri": str(root),
                "truncated": truncated,
                "max_failure_fraction": 1.0,
            }
        )
    )
    assert manifest.rows_out == 178
    wanted = expected_failures(shared_data, keep=truncated == "keep")
    found = dict(manifest.failures)
    assert found.pop("truncated", 0) == wanted["truncated"]
    legal_but_large = 1  # 12000 x 12000: Pillow decodes it, max_pixels does not allow it
    assert sum(found.values()) == wanted["rejected"] + legal_but_large
    rows = parquet.read_folder(str(tmp_path / "dataset"), ["jpeg", "failure"])
    assert pc.all(pc.equal(pc.is_null(rows["jpeg"]), pc.is_valid(rows["failure"]))).as_py()


@pytest.fixture(scope="module")
def trashnet(local_ray: None, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trashnet_dataset(shared_data / "labelled", tmp_path_factory.mktemp("trashnet"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("backbone", "image_size", "learning_rate", "epochs", "accuracy"),
    [("small_cnn", 64, 0.003, 12, 0.65), ("tf_efficientnet_lite0", 160, 0.01, 6, 0.83)],
)
def test_trashnet_is_learnt(
    trashnet: Path,
    shared_data: Path,
    tmp_path: Path,
    backbone: str,
    image_size: int,
    learning_rate: float,
    epochs: int,
    accuracy: float,
) -> None:
    weights = shared_data / "backbones" / f"{backbone}.safetensors"
    pretrained = str(weights) if weights.exists() else False
    model = ModelConfig(
        backbone=backbone,
        image_size=image_size,
        pretrained=pretrained,
        freeze_backbone=weights.exists(),
    )
    optimizer = OptimizerConfig(learning_rate=learning_rate, backbone_rate=1.0, weight_decay=0.01)
    manifest = train.run(
        trashnet_config(
            trashnet, tmp_path / "model", model=model, optimizer=optimizer, max_epochs=epochs
        )
    )
    (row,) = manifest.summary["on the validation split"]
    assert row["accuracy"] >= accuracy
    if weights.exists():
        require_one_answer(
            tmp_path / "model", shared_data / "photos", tmp_path / "onnx", image_size
        )


def require_one_answer(model: Path, folder: Path, onnx: Path, image_size: int) -> None:
    """The figures of the README: what a photograph, its shard and the exported model answer."""
    photos = photographs(folder)
    assert len(photos) >= 60
    pairs = differences(str(model), photos, image_size=image_size, onnx_uri=str(onnx)).items()
    found = {name: (float(np.median(far)), float(far.max())) for name, (far, _) in pairs}
    for name, median, most in (
        ("photograph / ONNX, all pixels", 0.02, 0.12),
        ("photograph / its shard", 0.06, 0.3),
        ("its shard / ONNX, all pixels", 0.06, 0.3),
        ("Pillow's resize of all pixels / ONNX", 0.001, 0.02),
    ):
        assert found[name][0] <= median, found
        assert found[name][1] <= most, found
    assert found["photograph / ONNX, all pixels"] < found["the JPEG of the shard: quality 100 / 75"]
