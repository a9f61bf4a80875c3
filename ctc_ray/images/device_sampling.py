"""Sample squares of pixels from many images on a device: the squares of `images/sampling.py`.

Images of one size are sampled together. The filters are the same; they are computed with floats, so
a pixel differs by a grey level here and there. Nothing waits for the device.

Shape letters: B images of a batch, G images of one size, C channels (3, RGB), H height, W width,
S side of the square, K weights of a smoothing, N numbers of an axis.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  # everyone's name for it
from torch import Tensor

from ctc_ray.images.device_copies import copied
from ctc_ray.images.sampling import (
    Box,
    Geometry,
    affine_map,
    contains,
    frame_widths,
    pixels_per_step,
    sampled_region,
    smoothing,
    visible_part,
    whole_pixels,
)

Matrix = npt.NDArray[np.float64]

_PIXELS_AT_ONCE = 1 << 24  # 200 MB as floats


def sample_squares(
    images: Sequence[Tensor], geometries: Sequence[Geometry], *, image_size: int, keep_aspect: bool
) -> Tensor:
    """RGB pixels (B, 3, S, S) of the parts that the geometries name; channels last in memory.

    Args:
        images: at least one, uint8 (3, H, W), all on one device.
        image_size: S.
        keep_aspect: see `sampling.sample_square`.
    """
    parts, order = [], []
    for chosen in _alike(images, geometries):
        order += chosen
        images_GCHW = torch.stack([images[k] for k in chosen])
        some = [geometries[k] for k in chosen]
        sample = _turned if some[0].angle else _scaled
        parts.append(sample(images_GCHW, some, image_size, keep_aspect=keep_aspect))
    squares_BCSS = torch.cat(parts)
    if order != sorted(order):
        places = copied(np.argsort(order), torch.int64, squares_BCSS.device)
        squares_BCSS = squares_BCSS.index_select(0, places)
    return squares_BCSS.contiguous(memory_format=torch.channels_last)


def _alike(images: Sequence[Tensor], geometries: Sequence[Geometry]) -> Iterator[list[int]]:
    """Indices of images of one size, all rotated or none; as many as are computed at once."""
    groups: dict[tuple[int, int, bool], list[int]] = {}
    for k, (image, geometry) in enumerate(zip(images, geometries, strict=True)):
        groups.setdefault((*image.shape[1:], geometry.angle != 0), []).append(k)
    for (height, width, _), chosen in groups.items():
        n_at_once = max(1, _PIXELS_AT_ONCE // (height * width))
        for first in range(0, len(chosen), n_at_once):
            yield chosen[first : first + n_at_once]


def _region(images_GCHW: Tensor, *, keep_aspect: bool) -> Box:
    height, width = images_GCHW.shape[2:]
    return sampled_region((0.0, 0.0, float(width), float(height)), keep_aspect=keep_aspect)


# -- without a rotation ----------------------------------------------------------------------------


def _scaled(
    images_GCHW: Tensor, geometries: Sequence[Geometry], size: int, *, keep_aspect: bool
) -> Tensor:
    """As `sampling._scaled`: first along the rows, then along the columns, as Pillow does."""
    region = _region(images_GCHW, keep_aspect=keep_aspect)
    n_images, _, height, width = images_GCHW.shape
    axes = np.array([_axes(one, region, (width, height)) for one in geometries])
    frame = int(max(-axes[:, :, 2].min(), (axes[:, :, 3] - [width, height]).max()))
    axes_2GN = copied(axes.transpose(1, 0, 2), torch.float64, images_GCHW.device)
    of_rows_GSW = _weights(axes_2GN[0], size, width, frame)
    of_columns_GSH = _weights(axes_2GN[1], size, height, frame)
    pixels = images_GCHW.permute(0, 2, 1, 3).to(torch.float32).reshape(n_images, -1, width)
    rows = _rounded(pixels @ of_rows_GSW.transpose(1, 2)).reshape(n_images, height, -1)
    squares = _rounded(of_columns_GSH @ rows).reshape(n_images, size, 3, size)
    return squares.permute(0, 2, 1, 3).to(torch.uint8)


def _axes(
    geometry: Geometry, region: Box, size: tuple[int, int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """How the columns and the rows of a square are sampled; see `_axis`."""
    visible = visible_part(region, geometry)
    before, after = frame_widths(visible, region)
    has_frame = not contains(region, visible)
    inside = whole_pixels(region)
    across, down = (
        _axis(
            (visible[k], visible[k + 2]),
            (inside[k] - before[k], inside[k], inside[k + 2], inside[k + 2] + after[k])
            if has_frame
            else (0, 0, size[k], size[k]),
            -1.0 if k == 0 and geometry.flip < 0 else 1.0,
        )
        for k in (0, 1)
    )
    return across, down


def _axis(
    span: tuple[float, float], edges: tuple[int, int, int, int], direction: float
) -> tuple[float, ...]:
    """Start and end of what is sampled, of the pixels with a frame, and of those; -1: mirrored.

    Args:
        edges: of the frame, of the pixels in it, and of the frame again.
    """
    low, first, last, high = edges
    # Pillow takes 32-bit floats, from the first pixel that it is given
    start, end = (float(np.float32(min(max(edge, low), high) - low)) + low for edge in span)
    return start, end, low, high, first, last, direction


def _weights(axis_GN: Tensor, size: int, n_pixels: int, frame: int) -> Tensor:
    """The weight of each pixel of an axis in each pixel of the square (G, S, n_pixels).

    Args:
        frame: black pixels on either side that count, at most.
    """
    start, end, low, high, first, last, direction = axis_GN.unsqueeze(2).unbind(1)
    step_G1 = (end - start) / size
    steps_S = torch.arange(size, device=axis_GN.device)
    steps_GS = torch.where(direction < 0, size - 1 - steps_S, steps_S)
    middles_GS = start + (steps_GS + 0.5) * step_G1
    wholes_GS = middles_GS.floor()  # float32 is not exact enough for both
    rests_GS = (middles_GS - wholes_GS - 0.5).to(torch.float32)
    pixels = torch.arange(-frame, n_pixels + frame, device=axis_GN.device)
    distances = (pixels - wholes_GS[:, :, None]).to(torch.float32) - rests_GS[:, :, None]
    reach_G11 = step_G1.clamp(min=1).to(torch.float32)[:, :, None]
    weights = (1 - distances.abs() / reach_G11).clamp_(min=0)
    weights *= (pixels >= low[:, :, None]) & (pixels < high[:, :, None])
    weights /= weights.sum(dim=2, keepdim=True)
    weights *= (pixels >= first[:, :, None]) & (pixels < last[:, :, None])
    return weights[:, :, frame : frame + n_pixels]


def _rounded(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)


# -- with a rotation -------------------------------------------------------------------------------


def _turned(
    images_GCHW: Tensor, geometries: Sequence[Geometry], size: int, *, keep_aspect: bool
) -> Tensor:
    """As `sampling._warped`: smoothed, framed by the outer pixels, and interpolated linearly."""
    region = _region(images_GCHW, keep_aspect=keep_aspect)
    left, top, right, bottom = whole_pixels(region)
    maps = [affine_map(visible_part(region, one), region, one, size) for one in geometries]
    weights_G2K = _smoothings(maps)
    framed = np.array([right - left + 2, bottom - top + 2])
    drawn = [
        np.concatenate([_to_grid(one, framed).ravel(), weights.ravel()])
        for one, weights in zip(maps, weights_G2K, strict=True)
    ]
    numbers = copied(np.array(drawn), torch.float32, images_GCHW.device)
    maps_G23 = numbers[:, :6].reshape(-1, 2, 3)
    inside = images_GCHW[:, :, top:bottom, left:right].to(torch.float32)
    if weights_G2K.shape[2] > 1:
        weights = numbers[:, 6:].reshape(weights_G2K.shape)
        inside = _smoothed(_smoothed(inside, weights[:, 0], 3), weights[:, 1], 2)
        inside = inside.round_().clamp_(0, 255)
    steps_S = torch.arange(size, dtype=torch.float32, device=images_GCHW.device)
    across, down, rest = maps_G23[:, None, None].unbind(-1)
    grid_GSS2 = across * steps_S[None, None, :, None] + down * steps_S[None, :, None, None] + rest
    framed_GCHW = F.pad(inside, (1, 1, 1, 1), mode="replicate")
    squares = F.grid_sample(
        framed_GCHW, grid_GSS2, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return _rounded(squares).to(torch.uint8)


def _to_grid(matrix: Matrix, framed: npt.NDArray[np.int64]) -> Matrix:
    """The map to the coordinates of `grid_sample`: -1 and 1 are the edges of the framed image."""
    mapped = matrix.copy()
    mapped[:, 2] += 1.5  # the frame, and half a pixel
    mapped *= 2 / framed[:, None]
    mapped[:, 2] -= 1
    return mapped


def _smoothings(maps: Sequence[Matrix]) -> Matrix:
    """The weights (G, 2, K) along rows and columns before the images are rotated."""
    weights = [[smoothing(scale) for scale in pixels_per_step(one)] for one in maps]
    longest = max(len(axis) for image in weights for axis in image)
    return np.array(
        [[np.pad(axis, (longest - len(axis)) // 2) for axis in image] for image in weights]
    )


def _smoothed(images_GCHW: Tensor, weights_GK: Tensor, dim: int) -> Tensor:
    """Each pixel with its neighbours along a dimension; at the edges they are mirrored."""
    n_pixels, n_weights = images_GCHW.shape[dim], weights_GK.shape[1]
    reach = n_weights // 2
    pixels = torch.arange(-reach, n_pixels + reach, device=images_GCHW.device) % (2 * n_pixels)
    mirrored = torch.minimum(pixels, 2 * n_pixels - 1 - pixels)
    padded = images_GCHW.index_select(dim, mirrored)
    result = torch.zeros_like(images_GCHW)
    for k, weight_G in enumerate(weights_GK.unbind(1)):
        result.addcmul_(padded.narrow(dim, k, n_pixels), weight_G[:, None, None, None])
    return result
