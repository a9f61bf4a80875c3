"""Batches that tell how far an epoch is, and how long it has waited for them."""

import time
from collections.abc import Callable, Iterator

from ctc_ray.console.progress import clock
from ctc_ray.training.batches import Batch

EVERY_S = 30.0


class TimedBatches:
    """Iterates over batches once, and reports progress every 30 seconds."""

    def __init__(
        self,
        batches: Iterator[Batch],
        n_images: int,
        tell: Callable[[str], None],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        """Nothing is read yet.

        Args:
            n_images: in all batches.
        """
        self._batches, self._tell, self._every_s = batches, tell, every_s
        self.n_images = n_images
        self.waited_s = 0.0
        """Time in which there was no batch."""

    def __iter__(self) -> Iterator[Batch]:
        began = told = time.perf_counter()
        n_done = 0
        while True:
            asked = time.perf_counter()
            batch = next(self._batches, None)
            now = time.perf_counter()
            self.waited_s += now - asked
            if batch is None:
                return
            if now - told >= self._every_s and n_done:
                told = now
                self._tell(self._line(n_done, now - began))
            yield batch
            n_done += len(batch.image_ids)

    def _line(self, n_done: int, seconds: float) -> str:
        rate = n_done / seconds
        return (
            f"{n_done:,} of {self.n_images:,} images, {rate:.0f} images/s, "
            f"{self.waited_s / seconds:.0%} of the time waiting for images, "
            f"{clock((self.n_images - n_done) / rate)} to go"
        )
