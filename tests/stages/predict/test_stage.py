import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import safetensors.torch
from builders import AtMost, StoppedError, bytes_below, photograph, taken_at

from ctc_ray.config.inventory import ImagesInventoryConfig
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.config.show import ShowConfig
from ctc_ray.errors import ConfigError, CtcError, IncompleteDataError
from ctc_ray.files import parquet
from ctc_ray.runs.executor import InProcess, Job, UnitResult
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import FINDINGS_FILE
from ctc_ray.stages.cluster.executor import RayExecutor
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.show import stage as show


def run(config: PredictConfig) -> Manifest:
    return predict.run(config, executor=InProcess())


def config(bundle: Path, output: Path, **fields: object) -> PredictConfig:
    values = {
        "bundle_uri": str(bundle),
        "output_uri": str(output),
        "batch_size": 4,
        "images_per_unit": 10,
        "max_failure_fraction": 1.0,
        "workers": 1,
        **fields,
    }
    return PredictConfig.model_validate(values)


@pytest.fixture(scope="session")
def predictions(
    bundle: Path, photos: Path, inventory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("predictions") / "predictions"
    inputs = {"inventory_uri": str(inventory), "image_root_uri": str(photos)}
    run(config(bundle, folder, export=("table", "csv", "json"), **inputs))
    return folder


def test_every_image_and_every_event_has_its_answer(predictions: Path, inventory: Path) -> None:
    images = parquet.read_folder(str(predictions / "images"))
    events = parquet.read_folder(str(predictions / "events"))
    rows = parquet.read_folder(str(inventory))
    assert images["image_id"].to_pylist() == rows["image_id"].to_pylist()
    assert events.num_rows == 24
    assert pc.sum(events["n_images"]).as_py() == 48
    assert images.filter(pc.is_valid(images["failure"]))["image_uri"].to_pylist() == [
        "images/e003_0.jpg"
    ]


def test_event_with_only_failed_images_still_gets_a_row(predictions: Path) -> None:
    events = parquet.read_folder(str(predictions / "events"))
    (event,) = events.filter(pc.equal(events["capture_event_id"], "event003")).to_pylist()
    assert (event["n_images"], event["n_failed"]) == (1, 1)
    assert event["pred_species"] is None


def test_model_that_learnt_colours_knows_them(predictions: Path) -> None:
    events = parquet.read_folder(str(predictions / "events")).to_pylist()
    colours = ("red", "green", "blue")
    right = [e["pred_species"] == colours[int(e["capture_event_id"][-3:]) % 3] for e in events]
    assert sum(right) >= 20


def test_exports_have_a_line_per_event_and_head(predictions: Path) -> None:
    lines = (predictions / "predictions.csv").read_text().splitlines()
    assert lines[0].startswith('"id","label","prediction_top","confidence_top","predictions_all"')
    assert len(lines) == 1 + 24 * 2
    assert len((predictions / "predictions.json").read_text().splitlines()) == 24


def test_batch_size_changes_no_answer(
    predictions: Path, bundle: Path, photos: Path, inventory: Path, tmp_path: Path
) -> None:
    inputs = {"inventory_uri": str(inventory), "image_root_uri": str(photos)}
    run(config(bundle, tmp_path / "out", batch_size=1, **inputs))
    one, many = (
        parquet.read_folder(str(folder / "images")) for folder in (tmp_path / "out", predictions)
    )
    assert one["pred_species"] == many["pred_species"]
    for a, b in zip(
        one["score_species"].to_pylist(), many["score_species"].to_pylist(), strict=True
    ):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_workers_on_ray_write_the_bytes_that_this_process_writes(
    local_ray: None,
    predictions: Path,
    bundle: Path,
    photos: Path,
    inventory: Path,
    tmp_path: Path,
) -> None:
    inputs = {"inventory_uri": str(inventory), "image_root_uri": str(photos)}
    made = config(bundle, tmp_path / "out", export=("table", "csv", "json"), workers=2, **inputs)
    predict.run(made, executor=RayExecutor())
    assert bytes_below(tmp_path / "out") == bytes_below(predictions)


def test_run_that_lost_a_unit_ends_with_the_same_bytes(
    predictions: Path, bundle: Path, photos: Path, inventory: Path, tmp_path: Path
) -> None:
    inputs = {"inventory_uri": str(inventory), "image_root_uri": str(photos)}
    again = config(bundle, tmp_path / "out", export=("table", "csv", "json"), **inputs)
    run(again)
    (tmp_path / "out" / "_manifest.json").unlink()
    (tmp_path / "out" / "images" / "part-00002.parquet").unlink()
    run(again)
    assert bytes_below(tmp_path / "out") == bytes_below(predictions)


def test_shards_of_a_split_are_a_source(bundle: Path, dataset: Path, tmp_path: Path) -> None:
    made = run(config(bundle, tmp_path / "out", dataset_uri=str(dataset), split="val"))
    shards = [s for s in read_manifest(str(dataset), "dataset").shards if s.split == "val"]
    assert made.rows_out == sum(shard.n_images for shard in shards)
    assert sum(made.failures.values()) == sum(shard.n_failed for shard in shards)


def test_folder_and_csv_are_sources(bundle: Path, photos: Path, tmp_path: Path) -> None:
    folder = run(config(bundle, tmp_path / "a", images_uri=str(photos / "images")))
    assert folder.rows_out == folder.summary["events"] == 47
    fields = {"event_column": "event", "image_columns": ("image1", "image2", "image3")}
    table = run(
        config(
            bundle,
            tmp_path / "b",
            csv_uri=str(photos / "events.csv"),
            image_root_uri=str(photos),
            **fields,
        )
    )
    assert (table.rows_out, table.summary["events"]) == (48, 24)
    assert table.meta == ["species", "count", "site"]


@pytest.mark.parametrize("kind", ["csv", "inventory"])
def test_a_wrong_root_is_told_with_the_first_path_before_anything_is_written(
    bundle: Path, photos: Path, inventory: Path, tmp_path: Path, kind: str
) -> None:
    source = {"inventory_uri": str(inventory)}
    if kind == "csv":
        columns = {"event_column": "event", "image_columns": ("image1", "image2", "image3")}
        source = {"csv_uri": str(photos / "events.csv"), **columns}
    wrong = config(
        bundle,
        tmp_path / "out",
        image_root_uri=str(photos / "images"),
        max_failure_fraction=0.5,
        **source,
    )
    message = (
        rf"none of 48 images .*, first {photos}/images/images/e000_0\.jpg: is --image-root-uri"
    )
    with pytest.raises(ConfigError, match=message):
        run(wrong)
    assert not (tmp_path / "out").exists()


def test_folder_that_is_no_bundle_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds dataset, expected bundle"):
        run(config(dataset, tmp_path / "out", images_uri=str(tmp_path)))
    with pytest.raises(IncompleteDataError, match="ctc train"):
        run(config(tmp_path, tmp_path / "out", images_uri=str(tmp_path)))


def test_split_that_is_not_there_is_named(bundle: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no split 'test'; splits are train, val"):
        run(config(bundle, tmp_path / "out", dataset_uri=str(dataset), split="test"))


def test_every_event_of_a_csv_is_answered_and_what_was_found_is_counted(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    with (photos / "events.csv").open() as file:
        image = next(csv.DictReader(file))["image1"]
    text = f"id,a,b,site\ne,{image},{image},S1\nnone,,,S2\nf,{image},,S1\n"
    (tmp_path / "events.csv").write_text(text)
    manifest = run(
        config(
            bundle,
            tmp_path / "out",
            csv_uri=str(tmp_path / "events.csv"),
            event_column="id",
            image_columns=("a", "b"),
            image_root_uri=str(photos),
            export=("table", "csv", "json"),
        )
    )
    events = parquet.read_folder(str(tmp_path / "out" / "events")).to_pylist()
    counted = [(e["capture_event_id"], e["n_images"], e["meta_site"]) for e in events]
    assert counted == [("e", 1, "S1"), ("f", 1, "S1"), ("none", 0, "S2")]
    assert manifest.summary["events"] == 3
    assert manifest.findings == {"duplicate_images": 1, "events_without_image": 1}
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()).keys() == {
        "e", "f", "none"
    }  # fmt: skip
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 1 + 3 * 2


def test_damaged_weights_are_told_before_anything_is_begun(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle, tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(CtcError, match=r"weights\.safetensors"):
        run(config(tmp_path / "model", tmp_path / "out", images_uri=str(photos)))
    assert not (tmp_path / "out").exists()


def test_more_gpus_than_there_are_is_refused_before_anything_is_begun(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--gpu-per-worker 99: needs 99 GPUs, this machine has"):
        run(config(bundle, tmp_path / "out", images_uri=str(photos), gpu_per_worker=99))
    assert not (tmp_path / "out").exists()


def test_a_shard_that_is_gone_is_one_clear_line(
    bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(dataset, tmp_path / "dataset")
    made = config(bundle, tmp_path / "out", dataset_uri=str(tmp_path / "dataset"), split="val")
    with pytest.raises(StoppedError):
        predict.run(made, executor=AtMost(1))
    shards = {path: path.read_bytes() for path in (tmp_path / "dataset" / "split=val").iterdir()}

    @dataclass(frozen=True)
    class WithoutShards:
        def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
            for path in shards:
                path.write_bytes(b"nothing")
            return InProcess().run(units, job)

    with pytest.raises(CtcError, match=r"^images/part-\d+.parquet: .*the same command") as raised:
        predict.run(made, executor=WithoutShards())
    assert "\n" not in str(raised.value)
    for path, content in shards.items():
        path.write_bytes(content)
    assert run(made).rows_out == run(made).rows_in


def overflowing(bundle: Path, folder: Path) -> Path:
    """The bundle with finite weights so large that bright images have infinite logits."""
    shutil.copytree(bundle, folder)
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    layer = weights["heads.0.weight"]
    weights["heads.0.weight"] = layer / layer.abs().max() * 2e38
    safetensors.torch.save_file(weights, folder / "weights.safetensors")
    return folder


def test_an_answer_that_is_no_number_is_a_failure_with_its_own_code(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    broken = overflowing(bundle, tmp_path / "model")
    made = run(config(broken, tmp_path / "out", images_uri=str(photos)))
    assert made.failures["model"] > 0
    rows = parquet.read_table(str(tmp_path / "out" / "images" / "part-00000.parquet"))
    assert rows.filter(pc.equal(rows["failure"], "model"))["pred_species"].null_count > 0
    for head in ("species", "count"):
        flat = rows[f"probs_{head}"].combine_chunks().flatten().to_numpy()
        assert np.isfinite(flat).all()


def test_other_weights_are_another_configuration(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(bundle, model)
    run(config(model, tmp_path / "out", images_uri=str(photos)))
    weights = safetensors.torch.load_file(model / "weights.safetensors")
    weights["heads.0.bias"] += 1
    safetensors.torch.save_file(weights, model / "weights.safetensors")
    with pytest.raises(ConfigError, match="work of another configuration"):
        run(config(model, tmp_path / "out", images_uri=str(photos)))


def test_classes_have_one_source_of_truth(bundle: Path, photos: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(bundle, model)
    manifest = json.loads((model / "_manifest.json").read_text())
    manifest["classes"]["species"] = ["wrong", *manifest["classes"]["species"][1:]]
    (model / "_manifest.json").write_text(json.dumps(manifest))
    made = run(config(model, tmp_path / "out", images_uri=str(photos)))
    assert made.classes == json.loads((model / "bundle.json").read_text())["classes"]


def test_findings_of_a_folder_are_listed_as_create_inventory_lists_them(
    bundle: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "1.jpg").write_bytes(photograph("red", seed=1))
    (root / "1.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    (root / "2.jpg").write_bytes(taken_at(photograph("red", seed=2), "2019:13:45 10:00:00"))
    inventory = ImagesInventoryConfig(source_uri=str(root), output_uri=str(tmp_path / "inventory"))
    create_inventory.run(inventory)

    manifest = run(config(bundle, tmp_path / "out", images_uri=str(root)))

    found, want = (
        parquet.read_table(str(tmp_path / name / FINDINGS_FILE)).to_pylist()
        for name in ("out", "inventory")
    )
    assert found == [row for row in want if row["kind"] in manifest.findings]
    assert [row["kind"] for row in found] == ["not_an_image", "broken_times"]
    shown = show.run(ShowConfig(uri=str(tmp_path / "out"))).values["finding_examples"]
    assert [row["finding"] for row in shown] == list(manifest.findings)
