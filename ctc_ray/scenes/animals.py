"""Draw animals for scenes: three species with different outlines and coats.

Outlines are in body lengths: x from tail to nose, y upwards from the feet.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Floats = npt.NDArray[np.float32]
Point = tuple[float, float]
Colour = tuple[int, int, int]

_OVERSAMPLING = 2  # animals are drawn larger and averaged down, for smooth outlines
_MARGIN = 0.12
_HOOF = 0.05
_COAT_PIXELS = 256


@dataclass(frozen=True)
class _Anatomy:
    height: float
    ellipses: tuple[tuple[float, float, float, float], ...]  # centre x and y, radii x and y
    polygons: tuple[tuple[Point, ...], ...]
    hips: tuple[float, ...]  # x of the legs
    hip_height: float
    leg_width: float
    coat: Callable[[Floats, Floats], Floats]  # x, y -> red, green, blue in 0 to 255


def _mix(share: Floats, one: Colour, other: Colour) -> Floats:
    where = share[..., None]
    return np.asarray(one, np.float32) * where + np.asarray(other, np.float32) * (1 - where)


def _striped(x: Floats, y: Floats) -> Floats:
    wave = np.sin(2 * math.pi * (6.5 * x + 0.25 * np.sin(5 * y)))
    return _mix((wave > 0).astype(np.float32), (238, 236, 228), (28, 26, 26))


def _patched(x: Floats, y: Floats) -> Floats:
    wave = np.sin(2 * math.pi * 3.6 * (x + 0.3 * y)) * np.sin(2 * math.pi * 3.6 * (y - 0.2 * x))
    return _mix((np.abs(wave) > 0.22).astype(np.float32), (146, 84, 36), (232, 200, 138))


def _bristly(x: Floats, y: Floats) -> Floats:
    wave = np.sin(2 * math.pi * (19 * x + 7 * y)) * 0.5 + 0.5
    return _mix(wave.astype(np.float32), (64, 50, 42), (40, 32, 28))


_ANATOMY = {
    "zebra": _Anatomy(
        height=1.25,
        ellipses=((0.52, 0.70, 0.42, 0.20), (0.22, 0.70, 0.18, 0.19)),
        polygons=(
            ((0.72, 0.84), (0.94, 0.62), (1.10, 1.00), (0.98, 1.16)),
            ((0.96, 1.16), (1.08, 1.12), (1.32, 0.90), (1.27, 0.83), (1.02, 0.96)),
            ((0.97, 1.10), (0.96, 1.25), (1.03, 1.13)),
            ((0.12, 0.80), (0.03, 0.40), (0.08, 0.40), (0.16, 0.70)),
        ),
        hips=(0.20, 0.30, 0.76, 0.86),
        hip_height=0.65,
        leg_width=0.085,
        coat=_striped,
    ),
    "giraffe": _Anatomy(
        height=2.15,
        ellipses=((0.50, 1.10, 0.38, 0.20), (0.76, 1.16, 0.16, 0.20)),
        polygons=(
            ((0.62, 1.20), (0.92, 1.06), (1.16, 1.92), (1.02, 2.00)),
            ((1.00, 2.02), (1.12, 2.04), (1.38, 1.86), (1.33, 1.78), (1.06, 1.86)),
            ((1.02, 2.00), (1.00, 2.14), (1.05, 2.14), (1.08, 2.00)),
            ((0.14, 1.15), (0.06, 0.65), (0.11, 0.65), (0.20, 1.05)),
        ),
        hips=(0.22, 0.32, 0.74, 0.84),
        hip_height=1.08,
        leg_width=0.075,
        coat=_patched,
    ),
    "boar": _Anatomy(
        height=0.80,
        ellipses=((0.50, 0.45, 0.47, 0.27), (0.72, 0.50, 0.26, 0.26), (0.98, 0.42, 0.21, 0.17)),
        polygons=(
            ((1.05, 0.50), (1.36, 0.32), (1.34, 0.22), (1.02, 0.28)),
            ((0.84, 0.56), (0.84, 0.76), (0.95, 0.58)),
        ),
        hips=(0.20, 0.32, 0.70, 0.82),
        hip_height=0.36,
        leg_width=0.11,
        coat=_bristly,
    ),
}

SPECIES = tuple(sorted(_ANATOMY))


def height_of(species: str) -> float:
    """Height of an animal in body lengths."""
    return _ANATOMY[species].height


def draw_animal(
    species: str, *, body_length: float, stride: float, faces_left: bool
) -> Image.Image:
    """One animal with a transparent background, RGBA; its feet are at the lower edge.

    Args:
        body_length: in pixels.
        stride: phase of the walk; 1 is a full cycle of the legs.
    """
    anatomy = _ANATOMY[species]
    size = _canvas(anatomy, body_length)
    animal = _coat(species).resize(size, Image.Resampling.BILINEAR)
    large = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    outline = _outline(anatomy, stride, body_length * _OVERSAMPLING, large)
    animal.putalpha(outline.reduce(_OVERSAMPLING))
    return animal.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if faces_left else animal


def _canvas(anatomy: _Anatomy, body_length: float) -> tuple[int, int]:
    width, height = 1.4 + 2 * _MARGIN, anatomy.height + _MARGIN
    return math.ceil(width * body_length), math.ceil(height * body_length)


@lru_cache
def _coat(species: str) -> Image.Image:
    """The coat before it is cut to the outline, RGB; a body length is `_COAT_PIXELS` pixels."""
    anatomy = _ANATOMY[species]
    width, height = _canvas(anatomy, _COAT_PIXELS)
    x = ((np.arange(width, dtype=np.float32) + 0.5) / _COAT_PIXELS - _MARGIN)[None, :]
    y = ((height - np.arange(height, dtype=np.float32) - 0.5) / _COAT_PIXELS)[:, None]
    light = 0.72 + 0.36 * (y / anatomy.height)  # from above
    coat_HWC = anatomy.coat(*np.broadcast_arrays(x, y)) * light[..., None]
    coat_HWC[y[:, 0] < _HOOF] = 30
    return Image.fromarray(coat_HWC.clip(0, 255).astype(np.uint8))


def _outline(anatomy: _Anatomy, stride: float, scale: float, size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)

    def at(x: float, y: float) -> Point:
        return (x + _MARGIN) * scale, size[1] - y * scale

    for x, y, radius_x, radius_y in anatomy.ellipses:
        pen.ellipse((*at(x - radius_x, y + radius_y), *at(x + radius_x, y - radius_y)), fill=255)
    for polygon in anatomy.polygons:
        pen.polygon([at(*point) for point in polygon], fill=255)
    half = anatomy.leg_width / 2
    for index, hip in enumerate(anatomy.hips):
        foot = hip + 0.16 * anatomy.hip_height * math.sin(
            2 * math.pi * (stride + 0.5 * (index % 2))
        )
        leg = [(hip - half, anatomy.hip_height), (hip + half, anatomy.hip_height)]
        leg += [(foot + 0.7 * half, 0.0), (foot - 0.7 * half, 0.0)]
        pen.polygon([at(*point) for point in leg], fill=255)
    return mask
