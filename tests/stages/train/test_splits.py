"""Which splits are learnt from and which measure, counted from the Parquet files."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from builders import dataset_config, train_config

from ctc_ray.config.base import build
from ctc_ray.config.dataset import SplitConfig
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet
from ctc_ray.models.bundle import load_bundle
from ctc_ray.runs.executor import InProcess
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.train import data
from ctc_ray.stages.train import stage as train
from ctc_ray.training.batches import Batch

pytestmark = pytest.mark.timeout(300)

SPLITS = {"train": 0.3, "val": 0.2, "a": 0.25, "b": 0.25}


@pytest.fixture(scope="module")
def four_splits(photos: Path, inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with the splits train and val, and two more."""
    output = tmp_path_factory.mktemp("four") / "dataset"
    split = SplitConfig(by="event", fractions=SPLITS)
    config = dataset_config(inventory, photos, output).replaced(split=split)
    create_dataset.run(config, executor=InProcess())
    return output


def config(dataset: Path, output: Path, **fields: Any) -> TrainConfig:
    return train_config(dataset, output).replaced(max_epochs=1, **fields)


def rows_of(dataset: Path, *splits: str) -> list[dict[str, Any]]:
    """The usable images of these splits, in the order of the files."""
    folders = sorted(f"split={name}" for name in splits)
    rows = [r for f in folders for r in parquet.read_folder(str(dataset / f)).to_pylist()]
    return [row for row in rows if row["failure"] is None]


def labels_of(rows: list[dict[str, Any]], head: str) -> Counter[str]:
    return Counter(row[f"label_{head}"] for row in rows if row[f"label_{head}"] is not None)


def read_by(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The ids of all images that a training learns from and measures, as often as it reads them."""
    found: dict[str, list[str]] = {"train": [], "measured": []}

    def recorded(name: str, read: Callable[..., Iterator[Batch]]) -> Callable[..., Iterator[Batch]]:
        def read_and_record(*args: Any, **options: Any) -> Iterator[Batch]:
            for batch in read(*args, **options):
                found[name].extend(batch.image_ids)
                yield batch

        return read_and_record

    with monkeypatch.context() as patch:
        patch.setattr(data, "read_parts", recorded("train", data.read_parts))
        patch.setattr(data, "read_batches", recorded("measured", data.read_batches))
        train.run(config)
    return found


def test_images_of_the_named_splits_are_learnt_from_and_measured_and_no_others(
    four_splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"train_splits": ("b", "train"), "val_splits": ("val", "a")}
    pretrained = {"model": {"image_size": 32, "normalisation": "backbone"}}
    used = config(four_splits, tmp_path / "model", **fields, **pretrained)
    found = read_by(used, monkeypatch)
    learnt, measured = rows_of(four_splits, "b", "train"), rows_of(four_splits, "val", "a")
    assert set(found["train"]) == {row["image_id"] for row in learnt}
    times = Counter(found["measured"])  # after the epoch, and of the model that is kept
    assert set(times) == {row["image_id"] for row in measured}
    assert len(set(times.values())) == 1


def test_counts_statistics_and_metrics_are_those_of_the_named_splits(
    four_splits: Path, tmp_path: Path
) -> None:
    fields = {"train_splits": ("a", "b"), "val_splits": ("val", "train")}
    train.run(config(four_splits, tmp_path / "model", **fields))
    bundle = load_bundle(str(tmp_path / "model"))
    learnt, measured = rows_of(four_splits, "a", "b"), rows_of(four_splits, "val", "train")
    for head in ("species", "count"):
        assert +Counter(bundle.provenance.n_training_images[head]) == labels_of(learnt, head)
        assert bundle.provenance.metrics[f"n_{head}"] == labels_of(measured, head).total()
    means = [simplejpeg.decode_jpeg(row["jpeg"]).mean((0, 1)) for row in learnt]
    assert bundle.model.pixel_mean == pytest.approx(np.mean(means, axis=0) / 255, abs=0.01)
    assert json.loads((tmp_path / "model" / "metrics.json").read_text())["split"] == "val, train"


def test_the_metrics_are_those_of_the_predictions_of_the_measured_splits(
    four_splits: Path, tmp_path: Path
) -> None:
    fields = {"train_splits": ("train", "val"), "val_splits": ("a", "b")}
    train.run(config(four_splits, tmp_path / "model", **fields))
    hits = []
    for split in ("a", "b"):
        source = {"dataset_uri": str(four_splits), "split": split}
        output = str(tmp_path / split)
        predict.run(
            PredictConfig(bundle_uri=str(tmp_path / "model"), output_uri=output, **source),
            executor=InProcess(),
        )
        answers = parquet.read_folder(f"{output}/images").to_pylist()
        answer = {row["image_id"]: row["pred_species"] for row in answers}
        hits += [answer[r["image_id"]] == r["label_species"] for r in rows_of(four_splits, split)]
    metrics = load_bundle(str(tmp_path / "model")).provenance.metrics
    assert metrics["n_species"] == len(hits)
    assert metrics["accuracy_species"] == pytest.approx(sum(hits) / len(hits))


def test_train_and_val_are_the_default(four_splits: Path, tmp_path: Path) -> None:
    named = {"train_splits": ("train",), "val_splits": ("val",)}
    others = {"train_splits": ("a",), "val_splits": ("b",)}
    weights = []
    for name, fields in {"default": {}, "named": named, "others": others}.items():
        train.run(config(four_splits, tmp_path / name, **fields))
        weights.append((tmp_path / name / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_other_splits_are_another_configuration(four_splits: Path, tmp_path: Path) -> None:
    train.run(config(four_splits, tmp_path / "model"))
    with pytest.raises(ConfigError, match=r'another configuration \(val_splits: \["val"\] there'):
        train.run(config(four_splits, tmp_path / "model", val_splits=("a",)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"train_splits": ("train", "c")},
            r"no usable image in split 'c'; splits are a, b, train, val \(.* --train-splits\)$",
        ),
        ({"val_splits": ("a", "x")}, r"no usable image in split 'x'; .* --val-splits\)$"),
        ({"train_splits": ()}, "train_splits"),
        ({"val_splits": ("train", "a")}, "split train is in train_splits and in val_splits"),
        (
            {"val_splits": ("a", "test"), "test_split": True},
            "test_split measures the split test, which is in val_splits, too",
        ),
        ({"val_splits": ("a", "a")}, "a name is given twice"),
    ],
)
def test_splits_that_cannot_be_are_one_line_before_work(
    four_splits: Path, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    values = config(four_splits, tmp_path / "model").model_dump()
    with pytest.raises(ConfigError, match=message):
        train.run(build(TrainConfig, {**values, **fields}, where="test"))
    assert not (tmp_path / "model").exists()
