"""How a worker makes the pixels that a model sees of the JPEGs of a shard."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar, assert_never

import numpy as np
import numpy.typing as npt
import torch

from ctc_ray.columns.seeds import stable_hash
from ctc_ray.config.training import AugmentConfig, TrainConfig
from ctc_ray.errors import SchemaError
from ctc_ray.images.augment import augment_batch, augment_image, params_of
from ctc_ray.images.decode import Pixels
from ctc_ray.images.resize import to_input
from ctc_ray.images.sampling import WHOLE
from ctc_ray.images.stacking import stack_frames
from ctc_ray.schemas import Failure
from ctc_ray.training.batches import DecodeAll
from ctc_ray.training.device_batches import ToDevice
from ctc_ray.training.loop import Augment

Image = TypeVar("Image", Pixels, torch.Tensor)

_NO_LIMIT = 1 << 62  # shards hold images that passed max_pixels already


def decode(
    raw: bytes,
    seed: int,
    *,
    image_size: int,
    keep_aspect: bool,
    settings: AugmentConfig | None,
    linear: bool,
) -> npt.NDArray[np.uint8]:
    """The pixels (S, S, 3) of an image of a shard, changed at random, or (None) as for evaluation.

    Args:
        seed: of the random changes.
        linear: also change the colours that are one matrix; see `augment_image`.

    Raises:
        SchemaError: the image cannot be decoded.
    """
    params = None if settings is None else params_of(seed, settings)
    found = to_input(
        raw,
        image_size=image_size,
        keep_aspect=keep_aspect,
        max_pixels=_NO_LIMIT,
        truncated="fail",
        geometry=WHOLE if params is None else params.geometry,
    )
    image = _pixels(found)
    return image if params is None else augment_image(image, params, linear=linear)


def decoder(
    config: TrainConfig,
    augment: AugmentConfig | None,
    image_size: int,
    device: torch.device | str,
) -> Callable[[bytes, int], npt.NDArray[np.uint8]]:
    """`decode` for a training on a device: changed at random, or (None) as for evaluation."""
    return partial(
        decode,
        image_size=image_size,
        keep_aspect=config.model.keep_aspect,
        settings=augment,
        linear=is_cpu(device),
    )


def decoder_of_batches(
    config: TrainConfig, augment: AugmentConfig, image_size: int, to_device: ToDevice
) -> DecodeAll | None:
    """What decodes the training images of a batch together, beside the training; None: nothing.

    Raises:
        ConfigError: torchvision cannot decode on the device.
    """
    match config.decode_on:
        case "cpu":
            return None
        case "gpu":
            from ctc_ray.images.device_pixels import require_decoder  # loads torchvision

            require_decoder(to_device.device)
            return partial(
                _decode_all,
                image_size=image_size,
                keep_aspect=config.model.keep_aspect,
                settings=augment,
                to_device=to_device,
            )
        case _:
            assert_never(config.decode_on)


def _decode_all(
    jpegs: Sequence[bytes],
    seeds: Sequence[int],
    *,
    image_size: int,
    keep_aspect: bool,
    settings: AugmentConfig,
    to_device: ToDevice,
) -> torch.Tensor:
    """As `decode` for each image, with colours as they are: (B, 3, S, S), on the device."""
    from ctc_ray.images.device_pixels import squares_on_device  # loads torchvision

    with to_device.beside():
        images_BCSS = squares_on_device(
            jpegs,
            [params_of(seed, settings) for seed in seeds],
            image_size=image_size,
            keep_aspect=keep_aspect,
            device=to_device.device,
        )
    return _pixels(images_BCSS)


def _pixels(found: Image | Failure) -> Image:
    """The image of a shard, which holds none that cannot be decoded.

    Raises:
        SchemaError: it holds one.
    """
    if isinstance(found, Failure):
        raise SchemaError(f"a shard holds an image that is {found.value}: create the dataset anew")
    return found


def stacker(config: TrainConfig) -> Callable[[Sequence[Pixels]], Pixels] | None:
    """What makes one image of the frames of an event; None: the model sees single images."""
    return stack_frames if config.is_stack else None


def seen_in_epoch(
    jpegs: Mapping[str, bytes],
    epoch: int,
    *,
    seed: int,
    settings: AugmentConfig,
    image_size: int,
    keep_aspect: bool,
) -> list[npt.NDArray[np.uint8]]:
    """The pixels (S, S, 3) of images of a shard that training on a CPU sees, before it mixes them.

    Args:
        jpegs: by the id of the image.
        epoch: its number, from 0.
        seed: of the training.

    Raises:
        SchemaError: an image cannot be decoded.
    """
    seeds = [stable_hash(image_id, seed, epoch) for image_id in jpegs]
    images_BHWC = np.stack(
        [
            decode(
                raw,
                seed,
                image_size=image_size,
                keep_aspect=keep_aspect,
                settings=settings,
                linear=True,
            )
            for raw, seed in zip(jpegs.values(), seeds, strict=True)
        ]
    )
    images_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2)
    changed_BCHW = augment_batch(images_BCHW, seeds, settings)
    return list(changed_BCHW.permute(0, 2, 3, 1).numpy())


def augmenter(config: TrainConfig, device: torch.device | str) -> Augment:
    """What changes the colours of a batch on the device; `decode` on a CPU has changed some."""
    linear = config.decode_on == "gpu" or not is_cpu(device)
    return partial(augment_batch, settings=config.changes, linear=linear)


def is_cpu(device: torch.device | str) -> bool:
    """Whether this is a CPU, not a GPU."""
    return torch.device(device).type == "cpu"
