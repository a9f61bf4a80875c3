"""Sample a square of pixels from an image: all of it, or a zoomed, cropped, rotated, mirrored part.

Training, validation and prediction sample with this module. Every output pixel is a weighted mean
of the image's own pixels, with weights that fall linearly to 0 at the middles of the neighbouring
output pixels (antialiased bilinear, as in Pillow and PyTorch). So nothing is interpolated twice,
and no pixel is skipped.

Shape letters: H height, W width, C channels, S side of the square.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ctc_ray.images.decode import Decoded, Pixels, as_rgb

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge in pixels; fractions of a pixel count."""

_MOST_POINTS = 8  # per output pixel and direction; scaled decoding leaves fewer than 4 pixels
# More take time, fewer skip pixels. A rotation by 0 degrees is 42 to 50 dB from the scaled image at
# inputs of 64 to 448 pixels from shards of 400; twice as far apart it is 37 dB, in half the time.
_PIXELS_PER_POINT = 1.4


@dataclass(frozen=True)
class Geometry:
    """What part of an image is sampled; the defaults take all of it, as it is."""

    zoom: float = 1.0
    """Share of the image's sides that is visible; above 1 the image has a black frame."""
    crop: float = 1.0
    """Share of the zoomed image's sides that the crop keeps."""
    left: float = 0.5
    """Position of the crop, from 0 (at the left edge) to 1 (at the right edge)."""
    top: float = 0.5
    """Position of the crop, from 0 (at the top) to 1 (at the bottom)."""
    angle: float = 0.0
    """Rotation in degrees, counter-clockwise."""
    flip: float = 1.0
    """-1 swaps left and right; 1 does not."""

    @property
    def kept(self) -> float:
        """Share of the image's sides that the square shows."""
        return self.zoom * self.crop


WHOLE = Geometry()


def sample_square(
    image: Decoded, geometry: Geometry, *, image_size: int, keep_aspect: bool
) -> Pixels:
    """RGB pixels (S, S, 3) of the part of the image that the geometry names.

    Args:
        image_size: S.
        keep_aspect: the part is of the largest centred square; otherwise of the whole image, which
            is squeezed.
    """
    region = _largest_square(image.box) if keep_aspect else image.box
    rgb_HWC = as_rgb(image.pixels)
    visible = _visible(region, geometry)
    if geometry.angle == 0:
        square_SSC = _scaled(rgb_HWC, visible, region, image_size)
        return square_SSC if geometry.flip > 0 else np.ascontiguousarray(square_SSC[:, ::-1])
    return _warped(rgb_HWC, visible, region, geometry, image_size)


def _largest_square(box: Box) -> Box:
    left, top, right, bottom = box
    side = min(right - left, bottom - top)
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    return x, y, x + side, y + side


def _visible(region: Box, geometry: Geometry) -> Box:
    """The part of the region that zoom and crop show, before it is rotated."""
    left, top, right, bottom = region
    width, height = right - left, bottom - top
    slack = geometry.zoom * (1 - geometry.crop) / 2  # the crop's middle moves by at most this share
    x = (left + right) / 2 + width * slack * (2 * geometry.left - 1)
    y = (top + bottom) / 2 + height * slack * (2 * geometry.top - 1)
    half_width, half_height = width * geometry.kept / 2, height * geometry.kept / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def _scaled(rgb_HWC: Pixels, visible: Box, region: Box, size: int) -> Pixels:
    """The visible part, scaled by one antialiased step; black outside the region."""
    if _contains(region, visible):
        inside = _clipped(visible, rgb_HWC)
        whole = Image.fromarray(rgb_HWC)
        scaled = whole.resize((size, size), Image.Resampling.BILINEAR, box=inside)
        return np.array(scaled)
    framed, (left, top) = _framed(rgb_HWC, visible, region)
    shifted = (visible[0] + left, visible[1] + top, visible[2] + left, visible[3] + top)
    return _scaled(framed, shifted, (0, 0, framed.shape[1], framed.shape[0]), size)


def _contains(region: Box, part: Box) -> bool:
    tolerance = 1e-6 * max(1.0, region[2], region[3])
    return (
        part[0] >= region[0] - tolerance
        and part[1] >= region[1] - tolerance
        and part[2] <= region[2] + tolerance
        and part[3] <= region[3] + tolerance
    )


def _clipped(box: Box, rgb_HWC: Pixels) -> Box:
    """The box without what rounding has put outside the pixels, which Pillow refuses."""
    height, width = rgb_HWC.shape[:2]
    return max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3])


def _framed(rgb_HWC: Pixels, visible: Box, region: Box) -> tuple[Pixels, tuple[int, int]]:
    """The region's pixels in a black frame that holds the visible part; the origin's shift."""
    left, top = math.floor(region[0] + 0.5), math.floor(region[1] + 0.5)
    right, bottom = math.ceil(region[2] - 0.5), math.ceil(region[3] - 0.5)
    before = [max(0, math.ceil(edge - visible[k])) + 1 for k, edge in enumerate((left, top))]
    after = [max(0, math.ceil(visible[k + 2] - edge)) + 1 for k, edge in enumerate((right, bottom))]
    inside_HWC = rgb_HWC[top:bottom, left:right]
    pad = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    return np.pad(inside_HWC, pad), (before[0] - left, before[1] - top)


def _warped(rgb_HWC: Pixels, visible: Box, region: Box, geometry: Geometry, size: int) -> Pixels:
    """The visible part, rotated and mirrored by one affine map; black outside the region.

    The map is read at several points per output pixel, whose weights are those of the filter.
    """
    width, height = visible[2] - visible[0], visible[3] - visible[1]
    fine_width, fine_height = (size * _n_points(side, size) for side in (width, height))
    radians = math.radians(geometry.angle)
    cos, sin = math.cos(radians), math.sin(radians)
    # output pixel (u, v), in [-1, 1] from the middle -> pixel of the image
    turned = np.array([[cos * geometry.flip, -sin], [sin * geometry.flip, cos]])
    scaled = np.diag([width / 2, height / 2]) @ _shear_free(turned, region)
    middle = np.array([(visible[0] + visible[2]) / 2, (visible[1] + visible[3]) / 2])
    steps = np.array([2 / fine_width, 2 / fine_height])
    matrix = np.zeros((2, 3))
    matrix[:, :2] = scaled * steps
    matrix[:, 2] = scaled @ (steps / 2 - 1) + middle - 0.5
    inside_HWC, (left, top) = _cut(rgb_HWC, region)
    matrix[:, 2] -= (left, top)
    cv2.setNumThreads(1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine_HWC = cv2.warpAffine(
        inside_HWC, matrix, (fine_width, fine_height), flags=flags, borderMode=cv2.BORDER_CONSTANT
    )
    if (fine_width, fine_height) == (size, size):
        return np.asarray(fine_HWC, np.uint8)
    whole = Image.fromarray(np.asarray(fine_HWC, np.uint8))
    return np.array(whole.resize((size, size), Image.Resampling.BILINEAR))


def _n_points(side: float, size: int) -> int:
    """Points per output pixel along a side of this many pixels."""
    return min(_MOST_POINTS, max(1, math.ceil(side / size / _PIXELS_PER_POINT)))


def _shear_free(turned: npt.NDArray[np.float64], region: Box) -> npt.NDArray[np.float64]:
    """The rotation in shares of the region's sides, of an image that is squeezed to a square."""
    aspect = (region[2] - region[0]) / (region[3] - region[1])
    sheared: npt.NDArray[np.float64] = turned * np.array([[1.0, 1 / aspect], [aspect, 1.0]])
    return sheared


def _cut(rgb_HWC: Pixels, region: Box) -> tuple[Pixels, tuple[int, int]]:
    """The region's whole pixels, and the position of the first."""
    left, top = math.floor(region[0] + 0.5), math.floor(region[1] + 0.5)
    right, bottom = math.ceil(region[2] - 0.5), math.ceil(region[3] - 0.5)
    return np.ascontiguousarray(rgb_HWC[top:bottom, left:right]), (left, top)
