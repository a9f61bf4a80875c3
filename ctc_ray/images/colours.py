"""Colour changes that are one matrix per image: they cost next to nothing, on any device.

Brightness, contrast, saturation and hue in their linear forms, in this order: brightness
multiplies, contrast moves away from the image's mean luma, saturation away from each pixel's luma,
and hue turns the colours around the gray axis of YIQ. Luma is that of BT.601. A gray pixel stays
gray.

Shape letters: C channels (3, RGB), H height, W width.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ctc_ray.images.decode import Pixels

LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearColours:
    """The changes of one image; the defaults leave it as it is."""

    brightness: float = 1.0
    """Factor of the pixel values."""
    contrast: float = 1.0
    """Factor of the distance from the image's mean luma."""
    saturation: float = 1.0
    """Factor of the distance from the pixel's luma; 0: gray."""
    hue: float = 0.0
    """Turn of the colours, in full turns."""

    def matrix(self) -> Matrix:
        """What pixels (3,) are multiplied by."""
        to_luma = np.tile(LUMA, (3, 1))
        saturated = self.saturation * np.eye(3) + (1 - self.saturation) * to_luma
        return self.brightness * self.contrast * (_turn(self.hue) @ saturated)

    @property
    def of_mean(self) -> float:
        """What is added to all channels, as a factor of the image's mean luma."""
        return (1 - self.contrast) * self.brightness


UNCHANGED = LinearColours()


def _turn(hue: float) -> Matrix:
    """The turn of the colours around the gray axis; gray and luma stay as they are."""
    if hue == 0:
        return np.eye(3)
    cos, sin = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)
    turned: Matrix = _FROM_YIQ @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _TO_YIQ
    return turned


def change_colours(rgb_HWC: Pixels, colours: LinearColours) -> Pixels:
    """The image with other colours, rounded and clipped to uint8."""
    if colours == UNCHANGED:
        return rgb_HWC
    mean = float(LUMA @ cv2.mean(rgb_HWC)[:3])
    added = np.full((3, 1), colours.of_mean * mean)
    changed = cv2.transform(rgb_HWC, np.hstack([colours.matrix(), added]))
    return np.asarray(changed, np.uint8)
