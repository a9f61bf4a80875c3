"""metrics.json, and the summary, beside what a person would count in the predictions."""

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import dataset_in_process, inventory_config, untrained_bundle, write_events

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.console.summaries import of_manifest, show
from ctc_ray.files import parquet
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_bundle(tmp_path_factory.mktemp("untrained") / "model")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 events, the images of two missing, two of a class that the model does not know."""
    folder = tmp_path_factory.mktemp("labelled")
    path = write_events(folder, n_events=24, broken=[3, 7])
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    at = header.index("species")
    for event, name in ((3, "wolf"), (5, "wolf"), (11, "lynx"), (20, "")):
        rows[event][at] = name
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


def run(model: Path, output: Path, labelled: Path, **fields: object) -> Manifest:
    values = {
        "bundle_uri": str(model),
        "output_uri": str(output),
        "csv_uri": str(labelled / "events.csv"),
        "event_column": "event",
        "image_columns": ("image1", "image2", "image3"),
        "head_columns": ("species", "count"),
        "image_root_uri": str(labelled),
        "images_per_unit": 7,
        "max_failure_fraction": 1.0,
        **fields,
    }
    return predict.run(PredictConfig.model_validate(values), executor=InProcess())


def by_hand(rows: Sequence[dict[str, Any]], head: str, classes: Sequence[str]) -> dict[str, Any]:
    pairs = [(row[f"label_{head}"], row[f"pred_{head}"]) for row in rows]
    usable = [(label, p) for label, p in pairs if label in classes and p is not None]
    f1 = []
    for name in {label for label, _ in usable}:
        right = sum(label == p == name for label, p in usable)
        f1.append(2 * right / sum((label == name) + (p == name) for label, p in usable))
    return {
        "n": len(usable),
        "accuracy": pytest.approx(sum(label == p for label, p in usable) / len(usable)),
        "macro_f1": pytest.approx(sum(f1) / len(f1)),
        "n_unlabelled": sum(label is None for label, _ in pairs),
        "n_unknown_label": sum(
            label is not None and label not in classes and p is not None for label, p in pairs
        ),
        "n_failed": sum(label is not None and p is None for label, p in pairs),
    }


def test_metrics_are_those_of_the_predictions_in_the_files(
    model: Path, labelled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        manifest = run(model, tmp_path / "out", labelled)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(metrics) == ["images", "events"]
    for folder, heads in metrics.items():
        rows = parquet.read_folder(str(tmp_path / "out" / folder)).to_pylist()
        assert list(heads) == ["species", "count"]
        for head, found in heads.items():
            expected = by_hand(rows, head, manifest.classes[head])
            assert {name: found[name] for name in expected} == expected
            assert [row["class"] for row in found["classes"]] == manifest.classes[head]
            assert sum(row["support"] for row in found["classes"]) == found["n"]
    species = metrics["events"]["species"]
    counted = [species[name] for name in ("n", "n_unlabelled", "n_unknown_label", "n_failed")]
    assert counted == [19, 1, 2, 2]
    assert species["unknown_labels"] == {"wolf": 1, "lynx": 1}
    assert metrics["images"]["species"]["unknown_labels"] == {"wolf": 3, "lynx": 3}
    assert "species: events with labels that are no class of the model" in caplog.text
    assert "wolf 1, lynx 1" in caplog.text


def test_the_summary_shows_accuracy_and_classes_per_image_and_per_event(
    model: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = run(model, tmp_path / "out", labelled)
    show(of_manifest(manifest, output_uri="out"), width=80)
    shown = capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for kind in ("image", "event"):
        accuracy = metrics[f"{kind}s"]["species"]["accuracy"]
        (line,) = [
            line.split()
            for line in shown.splitlines()
            if line.split()[:2] == ["species", kind] and len(line.split()) > 4
        ]
        assert line[3] == f"{accuracy:.4g}"
        assert f"species per {kind}" in shown
        assert f"count per {kind}" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_metrics_do_not_depend_on_units_or_on_where_the_labels_came_from(
    model: Path, labelled: Path, tmp_path: Path
) -> None:
    table = labelled / "events.csv"
    create_inventory.run(inventory_config(table, tmp_path / "inventory"))
    dataset_in_process(tmp_path / "inventory", labelled, tmp_path / "dataset")
    run(model, tmp_path / "a", labelled)
    run(model, tmp_path / "b", labelled, images_per_unit=1000)
    of_csv = {"csv_uri": None, "event_column": None, "image_columns": (), "head_columns": ()}
    run(
        model,
        tmp_path / "c",
        labelled,
        **{**of_csv, "inventory_uri": str(tmp_path / "inventory")},
    )
    texts = {name: (tmp_path / name / "metrics.json").read_text() for name in "abc"}
    assert len(set(texts.values())) == 1
    run(
        model,
        tmp_path / "d",
        labelled,
        **{**of_csv, "image_root_uri": None, "dataset_uri": str(tmp_path / "dataset")},
    )
    of_csv_images, of_shards = (
        json.loads((tmp_path / name / "metrics.json").read_text())["images"]["species"]
        for name in "ad"
    )
    for name in ("n", "n_unlabelled", "n_unknown_label", "n_failed"):
        assert of_csv_images[name] == of_shards[name]


def test_without_labels_there_are_no_metrics_and_those_of_before_are_deleted(
    model: Path, labelled: Path, tmp_path: Path
) -> None:
    run(model, tmp_path / "out", labelled)
    assert (tmp_path / "out" / "metrics.json").exists()
    with (labelled / "events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    bare = tmp_path / "bare.csv"
    with bare.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "species": "", "count": "-1"} for row in rows)
    manifest = run(model, tmp_path / "out", labelled, csv_uri=str(bare), append=True)
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert "accuracy" not in manifest.summary


def test_files_and_manifest_say_which_model_answered(
    model: Path, labelled: Path, tmp_path: Path
) -> None:
    manifest = run(model, tmp_path / "out", labelled)
    assert manifest.model is not None
    assert (manifest.model.name, manifest.model.backbone) == ("model", "small_cnn")
    assert manifest.inputs[str(model)] == manifest.model.fingerprint
    for folder in ("images", "events"):
        for path in (tmp_path / "out" / folder).iterdir():
            with parquet.open_parquet(str(path)) as file:
                about = json.loads(file.schema_arrow.metadata[b"ctc_predictions"])
            assert about["model"] == manifest.model.model_dump()
            assert about["classes"] == manifest.classes
            assert about["aggregation"] == "mean"
            assert str(tmp_path) not in json.dumps(about)
