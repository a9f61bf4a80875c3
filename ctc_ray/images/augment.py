"""Random changes of training images.

An image's changes depend on its seed alone, not on the other images of the batch. Their ranges and
their order are the original's: zoom, crop, rotate, resize, flip, colour. The first five are one
step of `images/sampling.py`, when the image is decoded. Then a rectangle may be erased, and colours
change: those that are one matrix per image (`images/colours.py`) when it is decoded, or on a GPU;
the original's for a whole batch on its device (`augment_batch`).

Shape letters: B batch, C channels (3, RGB), H height, W width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import assert_never

import cv2
import numpy as np
import torch
from torch import Tensor

from ctc_ray.config.choices import Colour
from ctc_ray.config.training import AugmentConfig
from ctc_ray.images.colours import LUMA, UNCHANGED, LinearColours, change_colours
from ctc_ray.images.decode import Pixels
from ctc_ray.images.device_copies import copied
from ctc_ray.images.sampling import WHOLE, Geometry

BRIGHTNESS = 0.2
SATURATION = (0.8, 1.2)
HUE = 0.05  # of a full turn
CONTRAST = (0.9, 1.3)
CHROMA = 0.05

ERASED_AREA = (0.02, 0.2)
_LOG_ASPECT = math.log(10 / 3)  # as in the paper
_PAINTED = ("little", "full_fast", "full_randomized")

_GRAY_SPREAD = 1 / 255  # an image with a smaller mean difference of its channels is infrared
_IMAGES_AT_ONCE = 8  # as floats they fit into the processor's cache


@dataclass(frozen=True)
class Erased:
    """A rectangle of an image."""

    area: float
    """Share of the image."""
    aspect: float
    """Width by height, relative to the image's."""
    left: float
    """Position, from 0 (at the left edge) to 1 (at the right edge)."""
    top: float
    """Position, from 0 (at the top) to 1 (at the bottom)."""


@dataclass(frozen=True)
class AugmentParams:
    """What is done to one image; the defaults leave it as it is."""

    geometry: Geometry = WHOLE
    brightness: float = 0.0
    """Added to pixel values in [0, 1]."""
    saturation: float = 1.0
    """Factor of the saturation (HSV)."""
    hue: float = 0.0
    """Added to the hue, in full turns."""
    contrast: float = 1.0
    """Factor of the distance from the channel's mean."""
    blue: float = 0.0
    """Added to the chroma Cb, for pixel values in [0, 1]."""
    red: float = 0.0
    """Added to the chroma Cr, for pixel values in [0, 1]."""
    order: int = 0
    """Index of the order of the colour operations, from 0 to 3."""
    linear: LinearColours = UNCHANGED
    """For the colours that are one matrix."""
    erased: Erased | None = None
    """The rectangle that is filled."""


_OTHERS = ("geometry", "linear", "erased")
_COLOURS = tuple(field.name for field in fields(AugmentParams) if field.name not in _OTHERS)
_N_NUMBERS = len(fields(Geometry)) + len(_COLOURS) + 6


def sample_params(rng: np.random.Generator, settings: AugmentConfig) -> AugmentParams:
    """Draw the parameters of one image.

    Every call takes the same count of random numbers, so switching the crop off does not change the
    angle.
    """
    u = rng.random(_N_NUMBERS)

    def between(index: int, low: float, high: float) -> float:
        return float(low + (high - low) * u[index])

    coloured = settings.colour != "none"
    return AugmentParams(
        geometry=Geometry(
            zoom=between(0, 1 - settings.zoom, 1 + settings.zoom),
            crop=between(1, 1 - settings.crop, 1),
            left=float(u[2]),
            top=float(u[3]),
            angle=between(4, -settings.rotate, settings.rotate),
            flip=-1.0 if settings.flip and u[5] < 0.5 else 1.0,
        ),
        brightness=between(6, -BRIGHTNESS, BRIGHTNESS) if coloured else 0.0,
        saturation=between(7, *SATURATION),
        hue=between(8, -HUE, HUE),
        contrast=between(9, *CONTRAST),
        blue=between(10, -CHROMA, CHROMA),
        red=between(11, -CHROMA, CHROMA),
        order=int(u[12] * 4),
        linear=_linear(settings, between, is_gray=bool(u[13] < settings.gray)),
        erased=None
        if u[14] >= settings.erase
        else Erased(
            area=between(15, *ERASED_AREA),
            aspect=math.exp(between(16, -_LOG_ASPECT, _LOG_ASPECT)),
            left=float(u[17]),
            top=float(u[18]),
        ),
    )


def _linear(
    settings: AugmentConfig, between: Callable[[int, float, float], float], *, is_gray: bool
) -> LinearColours:
    if settings.colour != "standard":
        return LinearColours(saturation=0.0 if is_gray else 1.0)
    saturation = between(7, 1 - settings.saturation, 1 + settings.saturation)
    hue = between(8, -settings.hue, settings.hue)
    return LinearColours(
        brightness=between(6, 1 - settings.brightness, 1 + settings.brightness),
        contrast=between(9, 1 - settings.contrast, 1 + settings.contrast),
        saturation=0.0 if is_gray else saturation,
        hue=0.0 if is_gray else hue,
    )


def params_of(seed: int, settings: AugmentConfig) -> AugmentParams:
    """The changes of the image with this seed, at least 0."""
    return sample_params(np.random.Generator(np.random.Philox(key=seed)), settings)


def augment_image(rgb_HWC: Pixels, params: AugmentParams, *, linear: bool) -> Pixels:
    """What is done to one image after it has been sampled with its geometry.

    Args:
        linear: also change the colours that are one matrix; False leaves it to `augment_batch`.
    """
    if params.erased is not None:
        rgb_HWC = _without_rectangle(rgb_HWC, params.erased)
    return change_colours(rgb_HWC, params.linear) if linear else rgb_HWC


def rectangle(erased: Erased, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right edge of the rectangle in an image of this size, in pixels."""
    rows = min(height, max(1, round(height * math.sqrt(erased.area / erased.aspect))))
    columns = min(width, max(1, round(width * math.sqrt(erased.area * erased.aspect))))
    top, left = round((height - rows) * erased.top), round((width - columns) * erased.left)
    return top, top + rows, left, left + columns


def _without_rectangle(rgb_HWC: Pixels, erased: Erased) -> Pixels:
    top, bottom, left, right = rectangle(erased, *rgb_HWC.shape[:2])
    changed = rgb_HWC.copy()
    changed[top:bottom, left:right] = np.round(cv2.mean(rgb_HWC)[:3])
    return changed


def change_batch(images_BCHW: Tensor, colours: Sequence[LinearColours]) -> Tensor:
    """As `change_colours`, for a batch of uint8 images on any device."""
    matrices = np.stack([one.matrix() for one in colours]).ravel()
    of_mean = np.array([one.of_mean for one in colours])
    drawn = np.concatenate([matrices, of_mean, LUMA])
    sizes = [len(matrices), len(of_mean), len(LUMA)]
    matrices_, of_mean_B, luma_C = copied(
        drawn, torch.float32, images_BCHW.device
    ).split_with_sizes(sizes)
    floats_BCHW = images_BCHW.to(torch.float32)
    mean_B = torch.einsum("bchw,c->b", floats_BCHW, luma_C) / images_BCHW[0, 0].numel()
    changed_BCHW = torch.einsum("bdc,bchw->bdhw", matrices_.view(-1, 3, 3), floats_BCHW)
    changed_BCHW += (of_mean_B * mean_B)[:, None, None, None]
    return changed_BCHW.clamp_(0, 255).round_().to(torch.uint8)


def augment_batch(
    images_BCHW: Tensor, seeds_B: Sequence[int], settings: AugmentConfig, *, linear: bool = False
) -> Tensor:
    """Each image with random colours that depend on its seed alone; uint8, on the same device.

    Args:
        images_BCHW: uint8, sampled with the geometry of `params_of`.
        seeds_B: one seed >= 0 per image.
        linear: also change the colours that are one matrix, if `augment_image` has not.
    """
    has_linear = linear and (settings.colour == "standard" or settings.gray > 0)
    if not len(seeds_B) or not (has_linear or settings.colour in _PAINTED):
        return images_BCHW
    params = [params_of(seed, settings) for seed in seeds_B]
    if has_linear:
        images_BCHW = change_batch(images_BCHW, [one.linear for one in params])
    if settings.colour not in _PAINTED:
        return images_BCHW
    return apply_params(images_BCHW, params, settings.colour)


def apply_params(images_BCHW: Tensor, params: Sequence[AugmentParams], colour: Colour) -> Tensor:
    """Change the colours of each image by its own parameters; see `augment_batch`."""
    n_images = images_BCHW.shape[0]
    device = images_BCHW.device
    drawn = np.array([[getattr(one, name) for one in params] for name in _COLOURS], np.float32)
    columns = dict(zip(_COLOURS, copied(drawn, torch.float32, device), strict=True))
    orders = [one.order for one in params]
    result_BCHW = torch.empty_like(images_BCHW)
    n_at_once = _IMAGES_AT_ONCE if device.type == "cpu" else max(1, n_images)
    for first in range(0, n_images, n_at_once):
        part = slice(first, first + n_at_once)
        batch = _Batch({name: column[part] for name, column in columns.items()}, orders[part])
        floats_BCHW = images_BCHW[part].to(torch.float32).div_(255)
        painted_BCHW = _paint(floats_BCHW, batch, colour)
        result_BCHW[part] = painted_BCHW.clamp(0, 1).mul_(255).add_(0.5).to(torch.uint8)
    return result_BCHW


_BatchParams = dict[str, Tensor]  # field of AugmentParams -> its value per image, (B,)


@dataclass(frozen=True)
class _Batch:
    """The parameters of a batch."""

    params: _BatchParams
    """On the device of the images."""
    orders: Sequence[int]
    """`AugmentParams.order` of each image, on the CPU: a GPU would be waited for."""


def _brightness(images_BCHW: Tensor, params: _BatchParams) -> Tensor:
    return images_BCHW + _per_image(params["brightness"])


def _contrast(images_BCHW: Tensor, params: _BatchParams) -> Tensor:
    mean_BC11 = images_BCHW.mean(dim=(2, 3), keepdim=True)
    factor = _per_image(params["contrast"])
    return images_BCHW * factor + mean_BC11 * (1 - factor)


def _saturation(images_BCHW: Tensor, params: _BatchParams) -> Tensor:
    """Multiply S of HSV, up to 1: the channels move away from their maximum, or towards it."""
    low, high = images_BCHW.aminmax(dim=1, keepdim=True)
    most = (high / (high - low).clamp_min_(1e-6)).clamp_min_(0)
    factor = torch.minimum(_per_image(params["saturation"]), most)
    return torch.lerp(high, images_BCHW, factor)


def _hue(images_BCHW: Tensor, params: _BatchParams) -> Tensor:
    """Rotate H of HSV; a gray pixel stays as it is."""
    low, high = images_BCHW.aminmax(dim=1, keepdim=True)
    chroma = high - low
    red, green, blue = (images_BCHW[:, channel : channel + 1] for channel in range(3))
    per_chroma = 1 / chroma.clamp_min(1e-6)
    sixth = torch.where(
        high == red,
        (green - blue) * per_chroma,
        torch.where(high == green, (blue - red) * per_chroma + 2, (red - green) * per_chroma + 4),
    )
    sixth = sixth + 6 * _per_image(params["hue"])
    offsets = torch.arange(5.0, 0.0, -2.0, device=images_BCHW.device).view(1, 3, 1, 1)
    k = (sixth + offsets).remainder_(6)
    return high - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)


_Operation = Callable[[Tensor, _BatchParams], Tensor]
_FULL_ORDERS: tuple[tuple[_Operation, ...], ...] = (
    (_brightness, _saturation, _hue, _contrast),
    (_saturation, _brightness, _contrast, _hue),
    (_contrast, _hue, _brightness, _saturation),
    (_hue, _saturation, _contrast, _brightness),
)
_LITTLE_ORDERS: tuple[tuple[_Operation, ...], ...] = (
    (_brightness, _saturation),
    *((_saturation, _brightness),) * 3,
)


def _paint(images_BCHW: Tensor, batch: _Batch, colour: Colour) -> Tensor:
    """Change the colours; the result may be the input itself."""
    match colour:
        case "none" | "standard":
            return images_BCHW
        case "little":
            return _in_orders(images_BCHW, batch, _LITTLE_ORDERS)
        case "full_fast":
            return _paint_fast(images_BCHW, batch.params)
        case "full_randomized":
            return _in_orders(images_BCHW, batch, _FULL_ORDERS)
        case _:
            assert_never(colour)


def _paint_fast(images_BCHW: Tensor, params: _BatchParams) -> Tensor:
    """Add brightness and chroma, as one number per channel.

    The factors convert Cb and Cr to RGB (JPEG File Interchange Format, BT.601).
    """
    low, high = images_BCHW.aminmax(dim=1)
    # infrared frames have equal channels; a tint would invent a cue
    coloured = ((high - low).mean(dim=(1, 2)) > _GRAY_SPREAD).to(torch.float32)
    blue, red = params["blue"] * coloured, params["red"] * coloured
    added_BC = torch.stack(
        [1.402 * red, -0.344136 * blue - 0.714136 * red, 1.772 * blue], dim=1
    ) + params["brightness"].unsqueeze(1)
    return images_BCHW + added_BC[:, :, None, None]


def _in_orders(
    images_BCHW: Tensor, batch: _Batch, orders: Sequence[Sequence[_Operation]]
) -> Tensor:
    """Apply the operations to each image in the order that its parameters name."""
    by_order = np.argsort(batch.orders, kind="stable")
    sizes = np.bincount(batch.orders, minlength=len(orders)).tolist()
    result_BCHW = torch.empty_like(images_BCHW)
    for chosen, operations in zip(
        copied(by_order, torch.int64, images_BCHW.device).split_with_sizes(sizes),
        orders,
        strict=True,
    ):
        if chosen.numel():
            group_BCHW = images_BCHW[chosen]
            group_params = {name: column[chosen] for name, column in batch.params.items()}
            for operation in operations:
                group_BCHW = operation(group_BCHW, group_params)
            result_BCHW[chosen] = group_BCHW
    return result_BCHW


def _per_image(value_B: Tensor) -> Tensor:
    return value_B.view(-1, 1, 1, 1)
