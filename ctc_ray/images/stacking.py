"""The gray images of a burst as the channels of one image: what moved between them has a colour.

H height, W width, C channels.
"""

from collections.abc import Sequence

import numpy as np

from ctc_ray.columns.event_runs import IMAGES_PER_STACK
from ctc_ray.images.decode import Pixels

_LUMA = np.array([19595, 38470, 7471])  # ITU-R 601 in 1/65536, as Pillow makes gray images


def stack_frames(frames_HWC: Sequence[Pixels]) -> Pixels:
    """One image (H, W, 3) of one to three RGB images; the last is repeated where there are fewer.

    Raises:
        ValueError: there are none, or more than three.
    """
    if not 0 < len(frames_HWC) <= IMAGES_PER_STACK:
        raise ValueError(f"a stack of {len(frames_HWC)} images")
    gray = [((frame.astype(np.int64) @ _LUMA + 0x8000) >> 16) for frame in frames_HWC]
    gray += [gray[-1]] * (IMAGES_PER_STACK - len(gray))
    return np.stack(gray, axis=2).astype(np.uint8)
