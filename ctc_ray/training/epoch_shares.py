"""Which items of an epoch each worker still has to read, also when their number changes within it.

A worker's share is a sequence of stretches: parts of what workers would have read that began the
epoch. So items keep their order, and no item is read twice or left out, whoever goes on.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stretch:
    """Items [start, stop) of what one of several workers reads in an epoch, in its order."""

    n_workers: int
    rank: int
    start: int
    stop: int

    @property
    def n_items(self) -> int:
        """How many items it has."""
        return self.stop - self.start


Share = tuple[Stretch, ...]


def n_items(share: Share) -> int:
    """How many items a share has."""
    return sum(stretch.n_items for stretch in share)


def without_first(share: Share, n_done: int) -> Share:
    """The share without its first items."""
    ends = itertools.accumulate(stretch.n_items for stretch in share)
    return tuple(
        replace(stretch, start=max(stretch.start, stretch.stop - end + n_done))
        for stretch, end in zip(share, ends, strict=True)
        if n_done < end
    )


def divided(shares: Sequence[Share], n_workers: int) -> list[Share]:
    """All items of the shares, divided into one share per worker, equally many items in each.

    If they do not divide evenly, the last shares go on with the first items again.

    Args:
        shares: of any number of workers; together at least one item.
    """
    whole = tuple(itertools.chain.from_iterable(shares))
    total = n_items(whole)
    each = -(-total // n_workers)
    return [_cut(whole, rank * each % total, each, total) for rank in range(n_workers)]


def _cut(whole: Share, first: int, n: int, total: int) -> Share:
    """The n items from this one on, as on a ring."""
    rest = without_first(whole, first)
    n_rest = total - first
    if n_rest < n:
        return (*rest, *_cut(whole, 0, n - n_rest, total))
    return _first(rest, n)


def _first(share: Share, n: int) -> Share:
    begins = itertools.accumulate((stretch.n_items for stretch in share), initial=0)
    return tuple(
        replace(stretch, stop=min(stretch.stop, stretch.start + n - begin))
        for stretch, begin in zip(share, begins, strict=False)
        if begin < n
    )
