import io
from pathlib import Path

import numpy as np
import pytest
from builders import train_config
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ctc_ray.files import storage
from ctc_ray.files.csv_text import numbers_of_csv
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages.train.job import TrainingJob
from ctc_ray.stages.train.speed import add_epoch
from ctc_ray.stages.train.tensorboard import EVENTS_FILE, events_of
from ctc_ray.training.batches import read_batches

HISTORY = [
    {
        "epoch": epoch,
        "learning_rate": 0.1 / epoch,
        "train_loss": 2.0 / epoch,
        "val_loss": 3.0 / epoch,
        "val_loss_species": 1.0 / epoch,
        "val_accuracy_species": 0.5 + epoch / 10,
        "val_balanced_accuracy_top5_loss": 0.25,  # a head may be called like a metric
        "val_n_species": 40.0,
    }
    for epoch in (1, 2, 3)
]


def read(path: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads."""
    found = EventAccumulator(str(path))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_tensorboard_reads_every_metric_of_every_epoch(tmp_path: Path) -> None:
    path = tmp_path / EVENTS_FILE
    path.parent.mkdir()
    path.write_bytes(events_of(HISTORY))
    found = read(path.parent)
    assert set(found) == {
        "training/learning_rate",
        "training/train_loss",
        "training/val_loss",
        "species/val_loss",
        "species/val_accuracy",
        "top5_loss/val_balanced_accuracy",
    }
    assert found["species/val_accuracy"] == [
        (1, pytest.approx(0.6)), (2, pytest.approx(0.7)), (3, pytest.approx(0.8)),
    ]  # fmt: skip


def test_the_same_history_gives_the_same_bytes_and_a_longer_one_begins_with_them() -> None:
    assert events_of(HISTORY) == events_of(HISTORY)
    assert events_of(HISTORY).startswith(events_of(HISTORY[:2]))


def test_a_training_leaves_what_tensorboard_reads(bundle: Path) -> None:
    found = read(bundle / "tensorboard")
    assert [step for step, _ in found["species/val_accuracy"]] == [1, 2, 3, 4, 5, 6]
    assert found["species/val_accuracy"][-1][1] == 1.0


def test_the_speed_of_every_epoch_is_a_table_and_a_run_of_its_own(bundle: Path) -> None:
    found = read(bundle / "tensorboard" / "speed")
    assert set(found) == {"speed/seconds", "speed/images_per_s", "speed/waiting_share"}
    rows = numbers_of_csv((bundle / "speed.csv").read_bytes())
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row, (step, value) in zip(rows, found["speed/images_per_s"], strict=True):
        assert (step, value) == (row["epoch"], pytest.approx(row["images_per_s"]))
        assert row["seconds"] > 0
        assert 0 <= row["waiting_share"] <= 1


def test_an_epoch_that_is_done_again_has_one_row_and_ends_what_came_after_it(
    output_uri: str,
) -> None:
    for epoch in (1, 2, 3, 2):
        add_epoch(output_uri, epoch, {"seconds": float(epoch)})
    content = storage.read_bytes(storage.join(output_uri, "speed.csv"))
    assert content == b"epoch,seconds\r\n1,1.0\r\n2,2.0\r\n"


def test_a_training_shows_images_once_as_the_model_sees_them_at_first(
    bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    found = EventAccumulator(str(bundle / "tensorboard" / "images"))
    found.Reload()
    (event,) = found.Images("training images")
    sheet = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))
    assert sheet.shape[:2] == (event.height, event.width)
    here = TrainingJob(
        train_config(dataset, tmp_path),
        read_manifest(str(dataset)),
        rank=0,
        n_workers=1,
        device="cpu",
    )
    plan = here._data.plan(0, rank=0, n_workers=1)
    first = next(read_batches(plan, here._data._loader_settings(here._config.changes)))
    image_HWC = first.images_BCHW[0].permute(1, 2, 0).numpy()
    assert (sheet[6 : 6 + 32, 6 : 6 + 32] == image_HWC).all()
    assert sheet.shape[1] == 4 * (32 + 6) + 6
