"""Mix each training image with another one of its batch, and its labels with it.

mixup adds two images (Zhang et al. 2018), cutmix puts a rectangle of one into the other (Yun et al.
2019). How much, and which, follows from the seeds of the images alone.

B batch, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from ctc_ray.config.choices import Mixing
from ctc_ray.training.device_batches import copied
from ctc_ray.training.losses import Target


def mix(
    images_BCHW: Tensor,
    labels: Mapping[str, Tensor],
    seeds: Sequence[int],
    *,
    kind: Mixing,
    alpha: float,
) -> tuple[Tensor, list[Target]]:
    """The mixed images, and their labels: of each image at least half is its own.

    A label that is missing is missing in its share only.

    Args:
        labels: head -> class indices (B,).
        seeds: one per image.
        alpha: of the beta distribution that the other image's share is drawn from.
    """
    if kind == "none" or len(seeds) < 2:
        return images_BCHW, [Target(labels)]
    rng = np.random.Generator(np.random.Philox(key=seeds[0]))
    share = float(rng.beta(alpha, alpha))
    share = min(share, 1 - share)
    partner = copied(torch.from_numpy(rng.permutation(len(seeds))), images_BCHW.device)
    match kind:
        case "mixup":
            images_BCHW = torch.lerp(images_BCHW.float(), images_BCHW[partner].float(), share)
        case "cutmix":
            images_BCHW, share = _with_rectangles(images_BCHW, partner, share, rng)
        case _:
            assert_never(kind)
    others = {head: values[partner] for head, values in labels.items()}
    return images_BCHW, [Target(labels, 1 - share), Target(others, share)]


def _with_rectangles(
    images_BCHW: Tensor, partner: Tensor, share: float, rng: np.random.Generator
) -> tuple[Tensor, float]:
    """The images with a rectangle of their partners, and its share of the area."""
    height, width = images_BCHW.shape[2:]
    rows, columns = (max(1, round(side * share**0.5)) for side in (height, width))
    top, left = (int(rng.integers(0, n + 1)) for n in (height - rows, width - columns))
    mixed = images_BCHW.clone()
    area = (..., slice(top, top + rows), slice(left, left + columns))
    mixed[area] = images_BCHW[partner][area]
    return mixed, rows * columns / (height * width)
