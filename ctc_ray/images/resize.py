"""Resize an image for a shard, or for the input of a network.

in:  bytes of an image file, or a Pillow image
out: a small JPEG (`to_shard_jpeg`), or a square of pixels (`to_input`, `pillow_to_input`)

Shape letters: H height, W width, C channels.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from ctc_ray.config.choices import TruncatedPolicy
from ctc_ray.images import exif
from ctc_ray.images.bare_jpeg import strip_jpeg_metadata
from ctc_ray.images.channel_moments import Moments, channel_moments
from ctc_ray.images.decode import (
    FAST_EIGHTHS,
    Decoded,
    Pixels,
    decode_pillow_image,
    decode_plain_jpeg,
    decode_scaled,
)
from ctc_ray.images.sampling import WHOLE, Geometry, sample_square
from ctc_ray.schemas import Failure

_JPEG_MAX_SIDE = 65_500  # libjpeg's limit
# Pixels that scaled decoding leaves per pixel of the input, at least. With 1, the input is at worst
# 34 dB from that of the whole image, with 2 it is 47 dB; decoding 3 megapixels for an input of 224
# takes 1.75 times as long, a shard of 400 pixels 1.2 times.
_DECODED_PER_INPUT = 2
# Scaled decoding leaves a factor between 1 and 2. Up to 1.5, OpenCV's linear filter is as close to
# full decoding + Lanczos as its area mean (at worst 1 dB less, on the sharpest photos) and takes a
# quarter of the time: 0.9 instead of 3.5 ms per image. At 1.53, the factor of photos with 8
# megapixels, it loses 1.1 dB of 37.2 (0.1 dB in the JPEG) and makes the whole kernel 12 % faster.
# At larger factors it skips pixels: 31.5 instead of 36.1 dB at 1.99. tests/benchmarks/README.md has
# the whole table. INTER_LINEAR_EXACT and INTER_AREA gave equal bytes with and without AVX2 and
# AVX-512, in OpenCV 4.14 and 5.0; INTER_LINEAR does not promise that.
_MAX_LINEAR_FACTOR = 1.55


@dataclass(frozen=True)
class ShardImage:
    """An image as a shard stores it: upright, without metadata; sizes in pixels."""

    jpeg: bytes
    width: int
    height: int
    moments: Moments
    """How bright its channels are."""


def to_shard_jpeg(
    raw: bytes,
    *,
    smallest_side: int,
    quality: int,
    max_pixels: int,
    truncated: TruncatedPolicy,
    reencode_small: bool = False,
) -> ShardImage | Failure:
    """The image as a JPEG whose smaller side is `smallest_side` pixels, or its failure.

    An image is never enlarged. A gray image becomes a gray JPEG; other images store colours at half
    the resolution (4:2:0). For `max_pixels` and `truncated` see `decode_scaled`.

    Args:
        quality: of the JPEG, from 1 to 100.
        reencode_small: encode also an undamaged, upright JPEG that is small enough. Otherwise its
            compressed pixels are stored bit for bit, without its metadata.
    """
    if not reencode_small:
        kept = _kept(raw, smallest_side, max_pixels)
        if kept is not None:
            return kept
    decoded = decode_scaled(
        raw, smallest_side=smallest_side, max_pixels=max_pixels, truncated=truncated
    )
    if isinstance(decoded, Failure):
        return decoded
    width, height = _shard_size(decoded.width, decoded.height, smallest_side)
    image_HWC = _small(decoded, width, height)
    is_gray = image_HWC.shape[2] == 1
    jpeg: bytes = simplejpeg.encode_jpeg(
        image_HWC,
        quality=quality,
        colorspace="GRAY" if is_gray else "RGB",
        colorsubsampling="Gray" if is_gray else "420",
    )
    return ShardImage(jpeg, width, height, channel_moments(image_HWC))


def to_input(
    raw: bytes,
    *,
    image_size: int,
    keep_aspect: bool,
    max_pixels: int,
    truncated: TruncatedPolicy,
    geometry: Geometry = WHOLE,
) -> Pixels | Failure:
    """The image as RGB pixels (image_size, image_size, 3), or its failure.

    Training, validation and prediction all use this function. For `keep_aspect` see
    `sample_square`, for `max_pixels` and `truncated` see `decode_scaled`.

    Args:
        geometry: the part that training samples; evaluation and prediction take the whole image.
    """
    decoded = decode_scaled(
        raw,
        smallest_side=_needed_side(image_size, geometry),
        max_pixels=max_pixels,
        truncated=truncated,
        eighths=FAST_EIGHTHS,
    )
    if isinstance(decoded, Failure):
        return decoded
    return sample_square(decoded, geometry, image_size=image_size, keep_aspect=keep_aspect)


def pillow_to_input(
    image: Image.Image, *, image_size: int, keep_aspect: bool, max_pixels: int
) -> Pixels | Failure:
    """A Pillow image as RGB pixels (image_size, image_size, 3), or its failure.

    The result equals that of `to_input` for a lossless file with these pixels. A JPEG file gives
    slightly other pixels, because `to_input` scales it while it is decoded.
    """
    side = _needed_side(image_size, WHOLE)
    decoded = decode_pillow_image(image, smallest_side=side, max_pixels=max_pixels)
    if isinstance(decoded, Failure):
        return decoded
    return sample_square(decoded, WHOLE, image_size=image_size, keep_aspect=keep_aspect)


def _needed_side(image_size: int, geometry: Geometry) -> int:
    """Smallest side that an image is decoded to, so that no sampled part is enlarged."""
    return math.ceil(_DECODED_PER_INPUT * image_size / min(1.0, geometry.kept))


def _kept(raw: bytes, smallest_side: int, max_pixels: int) -> ShardImage | None:
    """The JPEG without metadata, if it is undamaged, upright and small enough; otherwise None.

    The result has been decoded, so a shard holds no damaged image.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(raw, strict=True)
    except ValueError:
        return None
    if min(width, height) > smallest_side or exif.orientation(raw) != 1:
        return None
    bare = strip_jpeg_metadata(raw)
    decoded = None if bare is None else decode_plain_jpeg(bare, None, max_pixels)
    if bare is None or not isinstance(decoded, Decoded):
        return None
    return ShardImage(bare, decoded.width, decoded.height, channel_moments(decoded.pixels))


def _shard_size(width: int, height: int, smallest_side: int) -> tuple[int, int]:
    """Width and height in a shard; libjpeg's limit of the longer side applies too."""
    scale = min(1, smallest_side / min(width, height), _JPEG_MAX_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _small(decoded: Decoded, width: int, height: int) -> Pixels:
    """The whole image scaled down to width x height."""
    rows, columns, n_channels = decoded.pixels.shape
    if np.allclose(decoded.box, (0, 0, columns, rows), rtol=0, atol=1e-3):
        return shrink(decoded.pixels, width, height)
    # scaled decoding has left a part of a pixel at an edge, and OpenCV scales whole pixels only
    image = Image.fromarray(decoded.pixels if n_channels == 3 else decoded.pixels[:, :, 0])
    left, top, right, bottom = decoded.box
    box = (max(0, left), max(0, top), min(columns, right), min(rows, bottom))
    small = np.array(image.resize((width, height), Image.Resampling.HAMMING, box))
    return small.reshape(height, width, n_channels)


def shrink(image_HWC: Pixels, width: int, height: int) -> Pixels:
    """The image scaled down to width x height; each pixel is about the mean of the area it covers.

    Returns the input itself if the size is unchanged. Sets OpenCV to one thread in this process,
    because a Ray task reserves one core.
    """
    old_height, old_width, n_channels = image_HWC.shape
    if (old_height, old_width) == (height, width):
        return image_HWC
    factor = max(old_height / height, old_width / width)
    is_linear = factor <= _MAX_LINEAR_FACTOR
    cv2.setNumThreads(1)
    small = cv2.resize(
        image_HWC,
        (width, height),
        interpolation=cv2.INTER_LINEAR_EXACT if is_linear else cv2.INTER_AREA,
    )
    return np.asarray(small, np.uint8).reshape(height, width, n_channels)
