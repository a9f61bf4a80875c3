from pathlib import Path

import pyarrow.compute as pc
import pytest
from builders import bytes_below, dataset_config, train_config

from ctc_ray import tables
from ctc_ray.config.dataset import SplitConfig
from ctc_ray.config.training import OptimizerConfig
from ctc_ray.errors import ConfigError, LabelError
from ctc_ray.manifest import read_manifest
from ctc_ray.models.bundle import load_bundle
from ctc_ray.stages import create_dataset, train

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def test_bundle_names_heads_classes_and_where_it_comes_from(bundle: Path, dataset: Path) -> None:
    loaded = load_bundle(str(bundle))
    assert loaded.label_space.to_json() == {
        "species": ["blue", "green", "red"],
        "count": ["1", "2"],
    }
    assert loaded.provenance.config["dataset_uri"] == str(dataset)
    assert loaded.provenance.n_training_images["species"].keys() == {"blue", "green", "red"}
    files = {path.name for path in bundle.iterdir()}
    assert {"weights.safetensors", "bundle.json", "README.md", "history.csv"} <= files


def test_three_colours_are_learnt(bundle: Path) -> None:
    metrics = load_bundle(str(bundle)).provenance.metrics
    assert metrics["accuracy_species"] > 0.8


def test_missing_labels_are_not_counted(bundle: Path, dataset: Path) -> None:
    rows = tables.read_folder(str(dataset / "split=val"))
    rows = rows.filter(pc.is_null(rows["failure"]))
    metrics = load_bundle(str(bundle)).provenance.metrics
    assert metrics["n_species"] == rows.num_rows
    assert metrics["n_count"] == rows.num_rows - rows["label_count"].null_count


def test_history_has_a_row_per_epoch(bundle: Path) -> None:
    lines = (bundle / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + 6
    assert {"epoch", "train_loss", "val_loss", "val_accuracy_species"} <= set(lines[0].split(","))


def test_finished_training_is_left_alone(bundle: Path, dataset: Path) -> None:
    before = bytes_below(bundle)
    train.run(train_config(dataset, bundle))
    assert bytes_below(bundle) == before


def test_two_workers_count_the_validation_split_exactly(
    dataset: Path, bundle: Path, tmp_path: Path
) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(
        workers=2, cpu_per_worker=0.5, max_epochs=1
    )
    train.run(config)
    one, two = (load_bundle(str(b)).provenance.metrics for b in (bundle, tmp_path / "model"))
    assert two["n_species"] == one["n_species"]
    assert two["n_count"] == one["n_count"]


def test_head_that_the_dataset_lacks_is_named(dataset: Path, tmp_path: Path) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(heads=("genus",))
    with pytest.raises(
        LabelError, match="'genus' is no head of the dataset; its heads are species"
    ):
        train.run(config)


def test_dataset_without_validation_images_is_refused(
    local_ray: None, photos: Path, inventory: Path, tmp_path: Path
) -> None:
    whole = dataset_config(inventory, photos, tmp_path / "dataset").replaced(
        split=SplitConfig(fractions={"train": 1.0})
    )
    create_dataset.run(whole)
    with pytest.raises(ConfigError, match="no usable image in split 'val'; splits are train"):
        train.run(train_config(tmp_path / "dataset", tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_head_without_a_label_in_a_split_is_refused(dataset: Path) -> None:
    manifest = read_manifest(str(dataset), "dataset")
    manifest.labels["val"]["count"] = dict.fromkeys(manifest.labels["val"]["count"], 0)
    with pytest.raises(ConfigError, match="no usable image of split 'val' has a label of head"):
        train._check_labels(train_config(dataset, dataset), manifest)


def test_weights_file_that_is_not_there_is_named(dataset: Path, tmp_path: Path) -> None:
    config = train_config(dataset, tmp_path / "model")
    config = config.replaced(model=config.model.model_copy(update={"pretrained": "no.safetensors"}))
    with pytest.raises(ConfigError, match=r"no.safetensors: no such file"):
        train.run(config)


def test_backbone_that_does_not_exist_is_named_before_ray_starts(
    dataset: Path, tmp_path: Path
) -> None:
    config = train_config(dataset, tmp_path / "model")
    config = config.replaced(model=config.model.model_copy(update={"backbone": "resnet81"}))
    with pytest.raises(ConfigError, match="resnet18"):
        train.run(config)
    assert not (tmp_path / "model").exists()


def test_training_that_diverges_is_one_clear_line(dataset: Path, tmp_path: Path) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(
        max_epochs=1, optimizer=OptimizerConfig(name="sgd", learning_rate=1e30)
    )
    with pytest.raises(ConfigError, match="training diverged"):
        train.run(config)


def test_manifest_holds_the_validation_metrics(bundle: Path) -> None:
    manifest = read_manifest(str(bundle), "bundle")
    heads = [row["head"] for row in manifest.counts["on the validation split"]]
    assert heads == ["species", "count"]
