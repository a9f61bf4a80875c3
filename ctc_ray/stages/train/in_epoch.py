"""How far an epoch is: what a checkpoint within it holds beside weights and optimiser.

W workers, N numbers of `MetricCounts.packed`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ctc_ray.training.epoch_shares import Share, Stretch, divided, n_items, without_first
from ctc_ray.training.metrics import MetricCounts
from ctc_ray.training.plans import batch_sizes


@dataclass(frozen=True)
class InEpoch:
    """The shares of all workers, and how much of them is done."""

    shares: tuple[Share, ...]
    n_updates: int
    """Updates of the weights that are done in this epoch."""
    n_before: int
    """Those of them that were done before these shares were made."""
    counts_WN: Tensor | None  # noqa: N815  # shape letters
    """Counts of each worker; None: nothing is counted."""

    @classmethod
    def begin(cls, n_items_each: int, n_workers: int) -> Self:
        """Nothing of the epoch is done."""
        shares = tuple((Stretch(n_workers, rank, 0, n_items_each),) for rank in range(n_workers))
        return cls(shares, 0, 0, None)

    def for_workers(self, n_workers: int, *, batch_size: int, accumulate: int) -> "InEpoch":
        """The epoch divided among this many workers, who share the items that are left.

        Args:
            batch_size: of each worker.
            accumulate: batches per update.
        """
        if n_workers == len(self.shares):
            return self
        n_batches = (self.n_updates - self.n_before) * accumulate
        left = []
        for share in self.shares:
            n_done = sum(batch_sizes(n_items(share), batch_size)[:n_batches])
            left.append(without_first(share, n_done))
        counts_WN = None
        if self.counts_WN is not None:
            counts_WN = self.counts_WN.new_zeros((n_workers, self.counts_WN.shape[1]))
            counts_WN[0] = self.counts_WN.sum(dim=0)
        return InEpoch(tuple(divided(left, n_workers)), self.n_updates, self.n_updates, counts_WN)

    def after(
        self,
        n_updates: int,
        counts: MetricCounts,
        *,
        rank: int,
        sum_over_workers: Callable[[Tensor], Tensor],
    ) -> "InEpoch":
        """The epoch after `n_updates` updates; every worker must call this."""
        packed_N = counts.packed()
        counts_WN = packed_N.new_zeros((len(self.shares), len(packed_N)))
        counts_WN[rank] = packed_N
        return InEpoch(self.shares, n_updates, self.n_before, sum_over_workers(counts_WN).cpu())

    def state(self) -> dict[str, Any]:
        """What `from_state` takes."""
        return {
            "shares": [[asdict(stretch) for stretch in share] for share in self.shares],
            "n_updates": self.n_updates,
            "n_before": self.n_before,
            "counts": self.counts_WN,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """What `state` was made of."""
        shares = tuple(tuple(Stretch(**one) for one in share) for share in state["shares"])
        counts: torch.Tensor | None = state["counts"]
        return cls(shares, state["n_updates"], state["n_before"], counts)
