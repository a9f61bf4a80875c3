from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ctc_ray.stages.train.tensorboard import EVENTS_FILE, events_of

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
