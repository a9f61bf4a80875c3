"""Training images of a batch, decoded and sampled on a device: nvJPEG on a GPU.

The CPU decodes what nvJPEG does not: JPEGs of other colours than YCbCr and gray, and those that it
refuses. On a CPU the code is the same, with libjpeg-turbo for nvJPEG.

Shape letters: B batch, C channels (3, RGB), H height, W width, S side of the square.
"""

from collections.abc import Sequence

import numpy as np
import simplejpeg
import torch
import torchvision
from torch import Tensor

from ctc_ray.errors import ConfigError
from ctc_ray.images.augment import AugmentParams, rectangle
from ctc_ray.images.decode import as_rgb, decode_scaled
from ctc_ray.images.device_copies import copied
from ctc_ray.images.device_sampling import sample_squares
from ctc_ray.schemas import Failure

_OF_NVJPEG = ("YCbCr", "Gray")
_NO_LIMIT = 1 << 62


def require_decoder(device: torch.device) -> None:
    """Check that JPEGs are decoded on the device: the CPU would take over without a word.

    Raises:
        ConfigError: this torchvision cannot.
    """
    square: bytes = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8), colorspace="RGB")
    try:
        (image,) = _decoded([square], device)
    except ImportError:
        image = None
    if image is None:
        raise ConfigError(
            f"--decode-on gpu: torchvision {torchvision.__version__} does not decode JPEGs on "
            f"{device}; use --decode-on cpu, or a torchvision with nvJPEG"
        )


def squares_on_device(
    jpegs: Sequence[bytes],
    params: Sequence[AugmentParams],
    *,
    image_size: int,
    keep_aspect: bool,
    device: torch.device,
) -> Tensor | Failure:
    """Images (B, 3, S, S), uint8, sampled and erased by their parameters; or the first failure.

    Colours stay as they are: `augment_batch` changes them.

    Args:
        jpegs: at least one, upright.
        image_size: S.
        keep_aspect: see `sampling.sample_square`.
    """
    images = decode_on_device(jpegs, device)
    if isinstance(images, Failure):
        return images
    geometries = [one.geometry for one in params]
    squares_BCSS = sample_squares(
        images, geometries, image_size=image_size, keep_aspect=keep_aspect
    )
    return without_rectangles(squares_BCSS, params)


def decode_on_device(jpegs: Sequence[bytes], device: torch.device) -> list[Tensor] | Failure:
    """All pixels of each JPEG, RGB, uint8 (3, H, W); or the first failure."""
    if device.type == "cuda":
        # torchvision writes into new tensors on a stream of its own, which does not wait until
        # this one has read what was in their memory before
        torch.cuda.current_stream(device).synchronize()
    plain = [k for k, raw in enumerate(jpegs) if _is_plain(raw)]
    images = dict(zip(plain, _decoded([jpegs[k] for k in plain], device), strict=True))
    result = []
    for k, raw in enumerate(jpegs):
        image = images.get(k)
        found = _decoded_by_cpu(raw, device) if image is None else image
        if isinstance(found, Failure):
            return found
        result.append(found)
    return result


def _is_plain(raw: bytes) -> bool:
    try:
        return simplejpeg.decode_jpeg_header(raw, strict=True)[2] in _OF_NVJPEG
    except ValueError:
        return False


def _decoded(jpegs: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """The pixels of each JPEG; None: the decoder refuses it."""
    from torchvision.io import ImageReadMode, decode_jpeg  # a later torchvision may have none

    raw = [torch.from_numpy(np.frombuffer(jpeg, np.uint8).copy()) for jpeg in jpegs]
    if not raw:
        return []
    try:
        images: list[Tensor | None] = decode_jpeg(raw, ImageReadMode.RGB, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        if len(jpegs) == 1:
            return [None]
        return [image for one in jpegs for image in _decoded([one], device)]
    return images


def _decoded_by_cpu(raw: bytes, device: torch.device) -> Tensor | Failure:
    found = decode_scaled(raw, smallest_side=None, max_pixels=_NO_LIMIT, truncated="fail")
    if isinstance(found, Failure):
        return found
    return copied(as_rgb(found.pixels).transpose(2, 0, 1), torch.uint8, device)


def without_rectangles(images_BCHW: Tensor, params: Sequence[AugmentParams]) -> Tensor:
    """Each image with the rectangle that its parameters erase filled, as in `augment_image`."""
    if all(one.erased is None for one in params):
        return images_BCHW
    height, width = images_BCHW.shape[2:]
    nothing = (0, 0, 0, 0)
    rectangles = [
        nothing if one.erased is None else rectangle(one.erased, height, width) for one in params
    ]
    device = images_BCHW.device
    top, bottom, left, right = copied(
        np.array(rectangles).T[:, :, None], torch.int64, device
    ).unbind()
    rows_BH = _is_between(torch.arange(height, device=device), top, bottom)
    columns_BW = _is_between(torch.arange(width, device=device), left, right)
    is_erased_BHW = rows_BH[:, :, None] & columns_BW[:, None, :]
    sums_BC = images_BCHW.sum(dim=(2, 3), dtype=torch.int64)
    means_BC = (sums_BC.to(torch.float64) / (height * width)).round().to(torch.uint8)
    return torch.where(is_erased_BHW[:, None], means_BC[:, :, None, None], images_BCHW).contiguous(
        memory_format=torch.channels_last
    )


def _is_between(numbers: Tensor, first: Tensor, end: Tensor) -> Tensor:
    return (numbers >= first) & (numbers < end)
