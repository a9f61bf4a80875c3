"""How often training sees the classes of a head: as often as they occur, or the rare ones more.

K classes of a head, N items of a window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ctc_ray.config.choices import Sampling


@dataclass(frozen=True)
class ClassSampling:
    """How often images are used, by their class of one head."""

    head: str
    weights_K: npt.NDArray[np.float64]  # noqa: N815  # shape letters
    """Expected uses of an image of each class; the mean over labelled images is 1."""

    def of_items(
        self, codes_N: npt.NDArray[np.int64], n_images_N: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """The weight of each item (N,): that of all images that it stands for.

        Args:
            codes_N: class indices, negative where a label is missing: such an image has weight 1.
            n_images_N: usable images that the item is chosen from.
        """
        known_N = np.maximum(codes_N, 0)
        return np.where(codes_N < 0, 1.0, self.weights_K[known_N]) * n_images_N


def class_sampling(
    rule: Sampling, head: str, n_images: Mapping[str, Sequence[int]]
) -> ClassSampling | None:
    """How a rule samples the classes of a head; None: as often as they occur.

    Classes without an image are left out.

    Args:
        n_images: head -> usable training images of each of its classes.
    """
    n_K = np.array(n_images[head], np.float64)
    match rule:
        case "none":
            return None
        case "balanced":
            shares_K = (n_K > 0).astype(np.float64)
        case "square-root":
            shares_K = np.sqrt(n_K)
        case _:
            assert_never(rule)
    return ClassSampling(head, shares_K / shares_K.sum() * n_K.sum() / np.maximum(n_K, 1))


def draw(weights_N: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """N indices of items in random order, each drawn in proportion to its weight.

    An item is drawn the expected number of times, rounded down or up (systematic sampling, Madow
    1949): with equal weights, each item once.
    """
    n = len(weights_N)
    ends_N = np.cumsum(weights_N) * (n / weights_N.sum())
    ends_N[-1] = n  # whatever the rounding of the sum
    drawn_N = np.floor(ends_N + rng.random()).astype(np.int64)
    n_times_N = np.diff(np.minimum(drawn_N, n), prepend=0)
    return rng.permutation(np.repeat(np.arange(n), n_times_N))


def occurrences(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each index has stood in the list before: 0 at its first use."""
    by_index = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.diff(order[by_index], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    found = np.empty(len(order), np.int64)
    found[by_index] = np.arange(len(order)) - np.repeat(starts, lengths)
    return found
