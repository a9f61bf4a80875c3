"""The updates of the weights after which all workers of a training stop for a moment together."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

_EVERY_S = 10.0
_FIRST_AFTER = 8  # updates, when nothing is known of their time


class Pauses:
    """About every ten seconds; every worker has them after the same updates.

    The first worker measures the time, because the clocks of workers differ.
    """

    def __init__(
        self, sum_over_workers: Callable[[Tensor], Tensor], *, is_first: bool, device: torch.device
    ) -> None:
        """No update has been done.

        Args:
            sum_over_workers: returns the sum; each worker calls it at every pause.
            is_first: whether this is the first worker.
        """
        self._sum, self._is_first, self._device = sum_over_workers, is_first, device
        self._n_done, self._next, self._began = 0, _FIRST_AFTER, time.monotonic()

    def is_now(self) -> bool:
        """Count an update; whether there is a pause after it."""
        self._n_done += 1
        return self._n_done >= self._next

    def agree(self, wanted: Callable[[], bool]) -> bool:
        """What the first worker wants, told to all; and when the next pause is.

        Args:
            wanted: called on every worker.
        """
        mine = float(wanted())
        per_update = max(1e-6, (time.monotonic() - self._began) / self._n_done)
        told = [mine, max(1.0, _EVERY_S // per_update)] if self._is_first else [0.0, 0.0]
        answer, n_updates = self._sum(torch.tensor(told, device=self._device)).tolist()
        self._n_done, self._next, self._began = 0, int(n_updates), time.monotonic()
        return bool(answer)
