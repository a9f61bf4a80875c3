"""A model of stacks: trained, validated and asked with up to three gray images of an event."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import dataset_in_process, inventory_config, train_config, write_events
from PIL import Image

import ctc_ray
from ctc_ray.config.prediction import ExportConfig, PredictConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet
from ctc_ray.images.resize import to_input
from ctc_ray.models.bundle import load_bundle
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages import export
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import sources
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.train import stage as train

SIDE = 32


def stack_config(dataset: Path, output: Path, **fields: Any) -> TrainConfig:
    return train_config(dataset, output).replaced(image_choice="stack", max_epochs=2, **fields)


@pytest.fixture(scope="module")
def stack_bundle(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("stacks") / "model"
    train.run(stack_config(dataset, output))
    return output


def predict_config(bundle: Path, output: Path, **fields: Any) -> PredictConfig:
    values = {"bundle_uri": str(bundle), "output_uri": str(output), "workers": 1, "batch_size": 4}
    return PredictConfig.model_validate({**values, "max_failure_fraction": 1.0, **fields})


def events_of(dataset: Path, split: str) -> dict[str, list[bytes]]:
    """Event -> its usable images."""
    found: dict[str, list[bytes]] = {}
    for row in parquet.read_folder(str(dataset / f"split={split}")).to_pylist():
        if row["failure"] is None:
            found.setdefault(row["capture_event_id"], []).append(row["jpeg"])
    return found


def stack_by_pillow(jpegs: list[bytes]) -> np.ndarray[Any, Any]:
    frames = []
    for raw in jpegs[:3]:
        pixels = to_input(
            raw, image_size=SIDE, keep_aspect=False, max_pixels=10**8, truncated="fail"
        )
        assert isinstance(pixels, np.ndarray)
        frames.append(np.asarray(Image.fromarray(pixels).convert("L")))
    return np.stack([*frames, frames[-1], frames[-1]][:3], axis=2)


def test_a_model_remembers_that_it_takes_stacks_and_is_validated_per_event(
    stack_bundle: Path, dataset: Path
) -> None:
    bundle = load_bundle(str(stack_bundle))
    assert bundle.is_stack
    record = read_manifest(str(stack_bundle), "bundle").bundle
    assert record is not None
    assert record.is_stack
    assert bundle.provenance.metrics["n_species"] == len(events_of(dataset, "val"))
    assert "gray images of a capture event" in (stack_bundle / "README.md").read_text()


def test_prediction_answers_every_image_with_its_events_stack(
    stack_bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    config = predict_config(stack_bundle, tmp_path / "out", dataset_uri=str(dataset), split="val")
    predict.run(config.replaced(uncalibrated=True), executor=InProcess())
    events = events_of(dataset, "val")
    pixels = np.stack([stack_by_pillow(jpegs) for jpegs in events.values()])
    with torch.inference_mode():
        logits = load_bundle(str(stack_bundle)).model(torch.tensor(pixels).permute(0, 3, 1, 2))
    wanted = dict(zip(events, torch.softmax(logits["species"], dim=1).numpy(), strict=True))
    for folder in ("images", "events"):
        rows = parquet.read_folder(str(tmp_path / "out" / folder)).to_pylist()
        usable = [row for row in rows if row["probs_species"] is not None]
        assert {row["capture_event_id"] for row in usable} == set(events)
        for row in usable:
            expected = wanted[row["capture_event_id"]]
            assert row["probs_species"] == pytest.approx(expected.tolist(), abs=1e-5)
    images = parquet.read_folder(str(tmp_path / "out" / "images"))
    assert images.num_rows > len(events)  # some are bursts
    assert images["failure"].null_count == sum(map(len, events.values()))


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_network_sees_each_stack_once(
    stack_bundle: Path, dataset: Path, tmp_path: Path, batch_size: int
) -> None:
    inputs = {"dataset_uri": str(dataset), "batch_size": batch_size}
    config = predict_config(stack_bundle, tmp_path / "out", **inputs)
    labels = load_bundle(str(stack_bundle)).label_space
    rows = sources.read_source(config, labels).whole().rows
    batches = list(
        sources.decode_batches(
            config, rows, image_size=SIDE, keep_aspect=False, is_stack=True, n_threads=1
        )
    )
    events = [jpegs for split in ("train", "val") for jpegs in events_of(dataset, split).values()]
    assert sum(len(batch.pixels_MSSC) for batch in batches) == len(events)
    answered = np.concatenate([batch.n_rows_M for batch in batches]).tolist()
    assert sorted(answered) == sorted(map(len, events))


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_of_any_size_hold_whole_events(
    stack_bundle: Path, photos: Path, inventory: Path, tmp_path: Path, batch_size: int
) -> None:
    inputs = {"inventory_uri": str(inventory), "image_root_uri": str(photos)}
    answers = []
    for size in (batch_size, 7):
        output = tmp_path / str(size)
        config = predict_config(stack_bundle, output, **inputs).replaced(batch_size=size)
        predict.run(config, executor=InProcess())
        answers.append(parquet.read_folder(str(output / "images")))
    one, other = answers
    assert one["image_id"].equals(other["image_id"])
    assert one["failure"].equals(other["failure"])
    for a, b in zip(*(t["probs_species"].to_pylist() for t in answers), strict=True):
        assert a == b or a == pytest.approx(b, abs=1e-5)


def test_what_makes_no_stacks_refuses_the_model(
    stack_bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    text = "this model takes stacks of an event's images"
    with pytest.raises(ConfigError, match=f"^export: {text}"):
        export.run(ExportConfig(bundle_uri=str(stack_bundle), output_uri=str(tmp_path / "out")))
    with pytest.raises(ConfigError, match=text):
        ctc_ray.load_bundle(str(stack_bundle)).predict([])
    config = predict_config(stack_bundle, tmp_path / "out", dataset_uri=str(dataset), append=True)
    with pytest.raises(ConfigError, match=f"^--append: {text}"):
        predict.run(config, executor=InProcess())
    assert not (tmp_path / "out").exists()


@pytest.fixture
def long_events(tmp_path: Path) -> Path:
    """A dataset of events with one to three images, of which each second is joined to the next."""
    csv_path = write_events(tmp_path / "photos")
    lines = csv_path.read_text().splitlines()
    cells = [line.split(",") for line in lines[1:]]
    rows = []
    for before, row in zip(cells[::2], cells[1::2], strict=True):
        names = [name for name in (*before[1:4], *row[1:4]) if name]
        rows.append([before[0], *names, *[""] * (6 - len(names)), *before[4:]])
    head = "event,image1,image2,image3,image4,image5,image6,species,count,site"
    csv_path.write_text("\n".join([head, *map(",".join, rows)]) + "\n")
    columns = tuple(f"image{k}" for k in range(1, 7))
    config = inventory_config(csv_path, tmp_path / "inventory").replaced(image_columns=columns)
    create_inventory.run(config)
    dataset_in_process(tmp_path / "inventory", tmp_path / "photos", tmp_path / "dataset")
    return tmp_path / "dataset"


def test_an_event_of_more_than_three_images_is_an_error_unless_the_first_three_are_wanted(
    long_events: Path, tmp_path: Path
) -> None:
    longest = max(len(v) for s in ("train", "val") for v in events_of(long_events, s).values())
    assert longest > 3
    message = r"capture event 'event\d+' has \d usable images, a stack holds 3; --stack-first-3"
    with pytest.raises(ConfigError, match=message):
        train.run(stack_config(long_events, tmp_path / "model"))
    assert not (tmp_path / "model").exists()
    made = train.run(
        stack_config(long_events, tmp_path / "model", stack_first_3=True, heads=("species",))
    )
    assert made.bundle is not None
    assert made.bundle.is_stack


def test_colours_of_stacks_are_not_changed_and_geometry_is() -> None:
    config = stack_config(Path("dataset"), Path("model"))
    assert (config.changes.colour, config.changes.gray) == ("none", 0)
    assert config.changes.rotate == config.augment.rotate
    single = config.replaced(image_choice="random")
    assert single.changes == single.augment
