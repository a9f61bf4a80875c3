import json
import shutil
from pathlib import Path

import pytest
import yaml
from builders import (
    AtMost,
    StoppedError,
    bytes_below,
    dataset_config,
    dataset_in_process,
    inventory_config,
    photograph,
    write_events,
)

from ctc_ray.config.inventory import DirInventoryConfig
from ctc_ray.config.prediction import ExportConfig, PredictConfig
from ctc_ray.config.show import ShowConfig
from ctc_ray.console import summaries
from ctc_ray.console.summaries import Summary
from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.files import storage
from ctc_ray.runs.append_journal import begin_append
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.stages import export
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.show import stage as show


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `inventory` and `dataset` in it: 24 images, of which 2 are missing."""
    folder = tmp_path_factory.mktemp("show")
    csv_path = write_events(folder / "photos", broken=[1])
    create_inventory.run(inventory_config(csv_path, folder / "inventory"))
    dataset_in_process(folder / "inventory", folder / "photos", folder / "dataset")
    return folder


def of(uri: Path | str, **options: object) -> Summary:
    return show.run(ShowConfig.model_validate({"uri": str(uri), **options}))


def printed(summary: Summary, capsys: pytest.CaptureFixture[str]) -> str:
    summaries.show(summary)
    return capsys.readouterr().out


def test_dataset_tells_counts_classes_per_split_and_failures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(of(folder / "dataset"), capsys)
    manifest = read_manifest(str(folder / "dataset"))
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "images 24 of 24" in lines
    assert "failures missing 2" in lines
    assert "written by ctc create-dataset, version 0.1.0" in lines
    assert "classes of species 3: blue, green, red" in lines
    for name in manifest.classes["species"]:
        counts = [manifest.labels[split]["species"][name] for split in ("train", "val")]
        assert f"{name} {counts[0]} {counts[1]}" in lines
    inventory = folder / "inventory"
    assert f"made from {inventory} {manifest_fingerprint(str(inventory))}" in lines


def test_a_dataset_that_grows_tells_by_what(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "dataset", tmp_path / "dataset")
    done = read_manifest(str(tmp_path / "dataset")).inputs
    begin_append(str(tmp_path / "dataset"), {"more": "digest"}, done=done)
    summary = of(tmp_path / "dataset")
    assert ("append not finished", "of more; run the same command again to resume") in summary.facts
    assert (summary.values["growing_by"], of(folder / "dataset").values["growing_by"]) == (
        ["more"],
        [],
    )


def test_configuration_is_yaml_that_says_what_the_manifest_says(folder: Path) -> None:
    text = of(folder / "dataset").text
    assert yaml.safe_load(text.partition("configuration\n")[2]) == dict(
        read_manifest(str(folder / "dataset")).config
    )


def test_values_are_json_and_hold_the_manifest(folder: Path) -> None:
    values = json.loads(json.dumps(of(folder / "dataset", failures=True).values))
    manifest = read_manifest(str(folder / "dataset")).model_dump(mode="json", exclude={"shards"})
    assert values.items() >= manifest.items()
    assert values["complete"] is True
    assert [row["image_uri"] for row in values["failed_images"]] == [
        "images/e001_0.jpg",
        "images/e001_1.jpg",
    ]


def test_only_the_first_20_failed_images_are_listed(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path / "photos", n_events=15, broken=range(15))
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    dataset_in_process(tmp_path / "inventory", tmp_path / "photos", tmp_path / "dataset")
    summary = of(tmp_path / "dataset", failures=True)
    assert summary.values["failures"] == {"missing": 30}
    assert len(summary.values["failed_images"]) == 20


def test_findings_of_an_inventory_come_with_an_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("red/1.jpg", "blue/2.jpg", "outside.jpg"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(photograph("red", seed=0))
    config = DirInventoryConfig(
        source_uri=str(tmp_path / "root"), output_uri=str(tmp_path / "inventory")
    )
    create_inventory.run(config)
    summary = of(tmp_path / "inventory")
    counts = read_manifest(str(tmp_path / "inventory")).findings
    assert {row["finding"]: row["cases"] for row in summary.values["finding_examples"]} == counts
    (row,) = (
        r
        for r in summary.values["finding_examples"]
        if r["finding"] == "files_outside_class_folders"
    )
    assert (row["cases"], row["first"]) == (1, "outside.jpg")
    assert "outside.jpg" in printed(summary, capsys)


def test_folder_without_images_has_no_failures_and_no_sheet(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds inventory, which has no table of failed images"):
        of(folder / "inventory", failures=True)
    Manifest(kind="bundle", config={}).write(str(tmp_path))
    with pytest.raises(ConfigError, match="holds bundle, which has no images"):
        of(tmp_path, contact_sheet=str(tmp_path / "a.png"))


def test_unfinished_folder_says_which_command_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataset_config(folder / "inventory", folder / "photos", tmp_path / "dataset")
    with pytest.raises(StoppedError):
        create_dataset.run(config, executor=AtMost(2))
    summary = of(tmp_path / "dataset")
    n_shards = len(read_manifest(str(folder / "dataset")).shards)
    assert summary.values == {
        "uri": str(tmp_path / "dataset"),
        "complete": False,
        "kind": "dataset",
        "command": "ctc create-dataset",
        "files": 2,
        "files_planned": n_shards,
    }
    out = printed(summary, capsys)
    assert f"2 of {n_shards}" in out
    assert "started by `ctc create-dataset`; run the same command again to resume" in out
    with pytest.raises(ConfigError, match="is not finished"):
        of(tmp_path / "dataset", failures=True)
    dataset_in_process(folder / "inventory", folder / "photos", tmp_path / "dataset")
    assert of(tmp_path / "dataset").values["complete"] is True


def test_what_is_no_folder_of_ours_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        of(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"manifest\.json: is a file"):
        of(folder / "dataset" / "_manifest.json")
    with pytest.raises(ConfigError, match="no unfinished run of a ctc command"):
        of(folder / "photos")
    (tmp_path / "_work").mkdir()
    (tmp_path / "_work" / "work.json").write_text("[]")
    with pytest.raises(ConfigError, match="no unfinished run of a ctc command"):
        of(tmp_path)
    (tmp_path / "_manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(SchemaError, match="schema version None"):
        of(tmp_path)


def test_nothing_in_the_folder_is_changed(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder / "dataset", copy)
    of(copy, failures=True, contact_sheet=str(tmp_path / "a.png"))
    assert bytes_below(copy) == bytes_below(folder / "dataset")


def test_folders_are_shown_wherever_they_lie(folder: Path, folder_uri: str) -> None:
    dataset_in_process(folder / "inventory", folder / "photos", folder_uri)
    sheet_uri = storage.join(folder_uri, "sheets", "a.png")
    summary = of(folder_uri, failures=True, contact_sheet=sheet_uri)
    assert summary.values["rows_out"] == 24
    assert len(summary.values["failed_images"]) == 2
    assert storage.read_bytes(sheet_uri).startswith(b"\x89PNG")


@pytest.mark.ray
def test_every_kind_of_folder_is_shown(
    photos: Path,
    bundle: Path,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers, exported = tmp_path / "predictions", tmp_path / "export"
    split = {"dataset_uri": str(dataset), "split": "val", "max_failure_fraction": 1.0}
    predict.run(PredictConfig(bundle_uri=str(bundle), output_uri=str(answers), **split))
    export.run(ExportConfig(bundle_uri=str(bundle), output_uri=str(exported)))
    words = {bundle: "macro f1", exported: "model.onnx", answers: "events predicted as species"}
    for place, word in words.items():
        assert word in printed(of(place), capsys)
    sheet = of(answers, contact_sheet=str(tmp_path / "a.png")).values
    assert sheet["images_on_it"] == read_manifest(str(answers)).rows_out
    assert "images_without_pixels" not in sheet or sheet["images_without_pixels"] == "missing 1"
