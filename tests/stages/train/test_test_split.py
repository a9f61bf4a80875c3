"""The kept model on the test split: what is measured is what `ctc predict` answers there."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from builders import dataset_config, train_config
from gloo_training import Part, trained
from safetensors.numpy import load_file

from ctc_ray.config.dataset import SplitConfig
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet
from ctc_ray.models.bundle import load_bundle
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.train.job import TrainingJob
from ctc_ray.training import calibration

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def three_splits(photos: Path, inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("three") / "dataset"
    split = SplitConfig(by="event", fractions={"train": 0.5, "val": 0.25, "test": 0.25})
    config = dataset_config(inventory, photos, output).replaced(split=split)
    create_dataset.run(config, executor=InProcess())
    return output


@pytest.fixture(scope="module")
def measured(three_splits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two epochs, which errs, with temperatures that are not 1."""
    output = tmp_path_factory.mktemp("measured") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "MIN_IMAGES", 1)
        train.run(train_config(three_splits, output).replaced(max_epochs=2, test_split=True))
    return output


@pytest.mark.parametrize("head", ["species", "count"])
def test_metrics_on_the_test_split_are_those_of_the_predictions(
    measured: Path, three_splits: Path, tmp_path: Path, head: str
) -> None:
    source = {"dataset_uri": str(three_splits), "split": "test"}
    config = PredictConfig(bundle_uri=str(measured), output_uri=str(tmp_path / "out"), **source)
    predict.run(config, executor=InProcess())
    answers = {
        folder: {
            row[key]: row[f"pred_{head}"]
            for row in parquet.read_folder(str(tmp_path / "out" / folder)).to_pylist()
        }
        for folder, key in (("images", "image_id"), ("events", "capture_event_id"))
    }
    answered = parquet.read_folder(str(tmp_path / "out" / "images")).to_pylist()
    score_of = {row["image_id"]: row[f"score_{head}"] for row in answered}
    hits, scores, votes = [], [], {}
    for row in parquet.read_folder(str(three_splits / "split=test")).to_pylist():
        label = row[f"label_{head}"]
        if row["failure"] is None and label is not None:
            hits.append(answers["images"][row["image_id"]] == label)
            scores.append(score_of[row["image_id"]])
            votes.setdefault(row["capture_event_id"], Counter())[label] += 1
    bins: dict[int, list[float]] = {}
    for is_hit, score in zip(hits, scores, strict=True):
        bins.setdefault(min(14, int(score * 15)), []).append(score - is_hit)
    error = sum(abs(sum(differences)) for differences in bins.values()) / len(hits)
    written = json.loads((measured / "metrics.json").read_text())["test"]["heads"][head]
    assert written["ece_after"] == pytest.approx(error, abs=1e-5)
    assert written["ece_before"] != written["ece_after"]
    of_events = [
        answers["events"][event] == min(count, key=lambda name: (-count[name], name))
        for event, count in votes.items()
    ]
    found = load_bundle(str(measured)).provenance.test_metrics
    assert found[f"n_{head}"] == len(hits) > found[f"event_n_{head}"] == len(of_events) > 0
    assert found[f"accuracy_{head}"] == pytest.approx(sum(hits) / len(hits))
    assert found[f"event_accuracy_{head}"] == pytest.approx(sum(of_events) / len(of_events))


def test_what_was_measured_is_in_the_files_and_the_summary(measured: Path) -> None:
    found = load_bundle(str(measured)).provenance.test_metrics
    written = json.loads((measured / "metrics.json").read_text())["test"]
    species = written["heads"]["species"]
    assert (written["loss"], species["accuracy"]) == (found["loss"], found["accuracy_species"])
    assert sum(row["images"] for row in species["classes"]) == species["n"]
    rows = read_manifest(str(measured), "bundle").summary["on the test split"]
    for row in rows:
        for name in ("accuracy", "event_accuracy", "n", "event_n"):
            assert row[name] == found[f"{name}_{row['head']}"]
    card = (measured / "README.md").read_text()
    part = card[card.index("## Metrics on the test split") : card.index("## Calibration")]
    assert f"| accuracy_species | {found['accuracy_species']:.4f} |" in part


def test_the_test_split_decides_nothing(measured: Path, three_splits: Path, tmp_path: Path) -> None:
    train.run(train_config(three_splits, tmp_path / "model").replaced(max_epochs=2))
    without, with_it = (
        load_file(at / "weights.safetensors") for at in (tmp_path / "model", measured)
    )
    assert all((without[name] == with_it[name]).all() for name in with_it)
    assert (tmp_path / "model" / "history.csv").read_bytes() == (
        measured / "history.csv"
    ).read_bytes()
    assert "test" not in json.loads((tmp_path / "model" / "metrics.json").read_text())
    summary = read_manifest(str(tmp_path / "model"), "bundle").summary
    assert "on the test split" not in summary
    assert "test split" not in (tmp_path / "model" / "README.md").read_text()


def test_two_workers_measure_what_one_measures(three_splits: Path, tmp_path: Path) -> None:
    config = train_config(three_splits, tmp_path / "out").replaced(max_epochs=2, test_split=True)
    found = trained(tmp_path / "two", config.model_dump(mode="json"), [Part(2, None)])
    manifest = read_manifest(str(three_splits), "dataset")
    alone = TrainingJob(config, manifest, rank=0, n_workers=1, device="cpu")
    alone.load_state(found["state"])
    final = alone.end().for_file(alone._model.label_space, monitor=config.monitor)
    assert flat(final["test"]) == pytest.approx(flat(found["final"]["test"]), rel=1e-5)
    assert flat(final["heads"]) == pytest.approx(flat(found["final"]["heads"]), rel=1e-5)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """The leaves of a JSON value by their path."""
    if not isinstance(value, dict | list):
        return {name: value} if isinstance(value, float | int) else {}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {path: leaf for key, v in items for path, leaf in flat(v, f"{name}/{key}").items()}


def test_a_dataset_without_a_test_split_is_one_clear_line_before_work(
    dataset: Path, tmp_path: Path
) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(test_split=True)
    message = r"no usable image in split 'test'; .*, or train without --test-split\)$"
    with pytest.raises(ConfigError, match=message):
        train.run(config)
    assert not (tmp_path / "model").exists()


def test_a_test_split_without_a_label_of_a_head_is_one_clear_line(three_splits: Path) -> None:
    manifest = read_manifest(str(three_splits), "dataset")
    manifest.labels["test"]["count"] = dict.fromkeys(manifest.labels["test"]["count"], 0)
    config = train_config(three_splits, three_splits)
    train._check_labels(config, manifest)
    with pytest.raises(
        ConfigError, match=r"split 'test' has a label of head 'count'.*--test-split"
    ):
        train._check_labels(config.replaced(test_split=True), manifest)


def test_stacks_are_measured_per_event(three_splits: Path, tmp_path: Path) -> None:
    fields = {"image_choice": "stack", "max_epochs": 1, "test_split": True}
    config: TrainConfig = train_config(three_splits, tmp_path / "model").replaced(**fields)
    train.run(config)
    found = load_bundle(str(tmp_path / "model")).provenance.test_metrics
    assert found["n_species"] == found["event_n_species"] > 0
