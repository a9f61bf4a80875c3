"""The two ways in which an image is made smaller: for a shard, and for the network.

in:  bytes of an image file
out: a small JPEG (`to_shard_jpeg`), or a square of pixels (`to_input`)

Shape letters: H height, W width, C channels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from ctc_ray.config.dataset import TruncatedPolicy
from ctc_ray.images import exif
from ctc_ray.images.bare_jpeg import strip_jpeg_metadata
from ctc_ray.images.decode import (
    Decoded,
    Pixels,
    decode,
    decode_plain_jpeg,
    decode_scaled,
)
from ctc_ray.schemas import Failure

_JPEG_MAX_SIDE = 65_500  # of libjpeg
# After scaled decoding the rest is a factor between 1 and 2. Up to 1.5 OpenCV's linear filter is as
# near to full decoding + Lanczos as its mean of areas (1 dB less at worst, on the sharpest photos)
# in a quarter of its time: 0.9 against 3.5 ms per image. At 1.53, where photos of 8 megapixels lie,
# it loses 1.1 dB of 37.2, 0.1 in the JPEG, and the whole kernel gains 12 %. Beyond, it skips
# pixels: 31.5 against 36.1 dB at 1.99. The whole table is in tests/benchmarks/README.md. Both gave
# the same bytes with and without AVX2 and AVX-512, in OpenCV 4.14 and 5.0; INTER_LINEAR promises no
# such thing.
_MAX_LINEAR_FACTOR = 1.55


@dataclass(frozen=True)
class ShardImage:
    """An image as it is stored in a shard: upright, without metadata."""

    jpeg: bytes
    width: int
    height: int


def to_shard_jpeg(
    raw: bytes,
    *,
    smallest_side: int,
    quality: int,
    max_pixels: int,
    truncated: TruncatedPolicy,
    reencode_small: bool = False,
) -> ShardImage | Failure:
    """The image with its smaller side at `smallest_side` pixels, as a JPEG; never enlarged.

    A gray image becomes a gray JPEG, any other one has its colours at half the resolution (4:2:0).
    For `max_pixels` and `truncated` see `decode_scaled`.

    Args:
        reencode_small: also a sound JPEG that is upright and small enough is encoded anew, instead
            of being stored with its own pixels, bit for bit, and without its metadata.
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
    image_HWC = shrink(decoded.pixels, width, height)
    is_gray = image_HWC.shape[2] == 1
    jpeg: bytes = simplejpeg.encode_jpeg(
        image_HWC,
        quality=quality,
        colorspace="GRAY" if is_gray else "RGB",
        colorsubsampling="Gray" if is_gray else "420",
    )
    return ShardImage(jpeg, width, height)


def to_input(
    raw: bytes, *, image_size: int, keep_aspect: bool, max_pixels: int, truncated: TruncatedPolicy
) -> Pixels | Failure:
    """The image as a square of the network's input, RGB, HWC: for training, testing, predicting.

    For `keep_aspect` see `square`, for `max_pixels` and `truncated` see `decode_scaled`.
    """
    image_HWC = decode(raw, smallest_side=image_size, max_pixels=max_pixels, truncated=truncated)
    if isinstance(image_HWC, Failure):
        return image_HWC
    return square(image_HWC, image_size=image_size, keep_aspect=keep_aspect)


def square(image_HWC: Pixels, *, image_size: int, keep_aspect: bool) -> Pixels:
    """The RGB image resized to `image_size` x `image_size` (bilinear, antialiased), HWC.

    Args:
        keep_aspect: cut the largest centred square first, instead of squeezing the whole image.
    """
    if keep_aspect:
        height, width = image_HWC.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image_HWC = image_HWC[top : top + side, left : left + side]
    whole = Image.fromarray(image_HWC)
    return np.array(whole.resize((image_size, image_size), Image.Resampling.BILINEAR))


def _kept(raw: bytes, smallest_side: int, max_pixels: int) -> ShardImage | None:
    """A JPEG that needs nothing but to lose its metadata; what is stored has been decoded."""
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
    return ShardImage(bare, decoded.width, decoded.height)


def _shard_size(width: int, height: int, smallest_side: int) -> tuple[int, int]:
    """Width and height in a shard; a JPEG's longest side limits very elongated images."""
    scale = min(1, smallest_side / min(width, height), _JPEG_MAX_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def shrink(image_HWC: Pixels, width: int, height: int) -> Pixels:
    """About the mean of the area that each pixel of the result covers; a new array, or its input.

    One thread does it, as one core per task is what Ray is told; this holds for OpenCV as a whole.
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
