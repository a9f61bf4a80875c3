import time
from collections.abc import Iterator

import pytest
import torch

from ctc_ray.training.batches import Batch
from ctc_ray.training.timed_batches import TimedBatches


def batches(n: int, seconds: float) -> Iterator[Batch]:
    for _ in range(n):
        time.sleep(seconds)
        yield Batch(
            torch.zeros(4, 3, 2, 2, dtype=torch.uint8), {}, (1,) * 4, ("a",) * 4, ("e",) * 4
        )


def test_time_without_a_batch_is_waiting_and_time_with_one_is_not() -> None:
    told: list[str] = []
    timed = TimedBatches(batches(10, 0.02), 40, told.append, every_s=0.1)
    n_images = 0
    for batch in timed:
        time.sleep(0.02)
        n_images += len(batch.image_ids)
    assert n_images == 40
    assert timed.waited_s == pytest.approx(0.2, abs=0.15)
    assert told
    assert " of 40 images, " in told[0]
    assert "of the time waiting for images" in told[0]


def test_a_short_epoch_tells_nothing() -> None:
    told: list[str] = []
    assert len(list(TimedBatches(batches(3, 0), 12, told.append))) == 3
    assert told == []
