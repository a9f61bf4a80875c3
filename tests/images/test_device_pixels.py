"""JPEGs that are decoded together, on a device, are those that are decoded one by one."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from ctc_ray.config.training import AugmentConfig
from ctc_ray.images.augment import augment_batch, augment_image, params_of
from ctc_ray.images.device_pixels import decode_on_device, squares_on_device
from ctc_ray.images.resize import ShardImage, to_input, to_shard_jpeg
from ctc_ray.schemas import Failure

LIMIT = 10**9
CPU = torch.device("cpu")
SIZE = 48
EVERYTHING = AugmentConfig(
    rotate=10, zoom=0.3, crop=0.3, erase=0.5, brightness=0.4, contrast=0.4, saturation=0.4
)


def scene(width: int, height: int, mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 128 + 90 * np.sin(x / 9) * np.cos(y / 13)
    green = 255 * ((x // 31 + y // 23) % 2)
    blue = 255 * x / max(1, width - 1)
    return Image.fromarray(np.stack([red, green, blue], axis=2).astype(np.uint8)).convert(mode)


def jpeg(width: int, height: int, mode: str = "RGB", **options: object) -> bytes:
    content = io.BytesIO()
    scene(width, height, mode).save(content, "JPEG", quality=90, **options)
    return content.getvalue()


def shard(width: int, height: int, mode: str = "RGB") -> bytes:
    found = to_shard_jpeg(
        jpeg(width, height, mode), smallest_side=60, quality=85, max_pixels=LIMIT, truncated="fail"
    )
    assert isinstance(found, ShardImage)
    return found.jpeg


JPEGS = {
    "of a shard": shard(300, 200),
    "gray": shard(300, 200, "L"),
    "odd": jpeg(61, 47),
    "tall": shard(100, 177),
    "progressive": jpeg(80, 60, progressive=True),
    "4:4:4": jpeg(80, 60, subsampling=0),
    "4:2:2": jpeg(71, 53, subsampling=1),
    "RGB": jpeg(80, 60, keep_rgb=True),
    "CMYK": jpeg(80, 60, "CMYK"),
}


def ordinary(raw: bytes, seed: int, settings: AugmentConfig, *, keep_aspect: bool) -> np.ndarray:
    params = params_of(seed, settings)
    found = to_input(
        raw,
        image_size=SIZE,
        keep_aspect=keep_aspect,
        max_pixels=LIMIT,
        truncated="fail",
        geometry=params.geometry,
    )
    assert isinstance(found, np.ndarray)
    return augment_image(found, params, linear=True)


def on_device(
    jpegs: Sequence[bytes],
    seeds: Sequence[int],
    settings: AugmentConfig,
    *,
    keep_aspect: bool = False,
    device: torch.device = CPU,
) -> np.ndarray:
    found = squares_on_device(
        jpegs,
        [params_of(seed, settings) for seed in seeds],
        image_size=SIZE,
        keep_aspect=keep_aspect,
        device=device,
    )
    assert isinstance(found, torch.Tensor)
    changed = augment_batch(found, seeds, settings, linear=True)
    return changed.cpu().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("keep_aspect", [True, False])
@pytest.mark.parametrize("rotate", [0.0, 10.0])
def test_a_batch_is_decoded_as_its_images_one_by_one(rotate: float, keep_aspect: bool) -> None:
    settings = EVERYTHING.model_copy(update={"colour": "none", "gray": 0, "rotate": rotate})
    jpegs = [*JPEGS.values()] * 4
    seeds = range(len(jpegs))
    found = on_device(jpegs, seeds, settings, keep_aspect=keep_aspect)
    for image, name, raw, seed in zip(found, [*JPEGS] * 4, jpegs, seeds, strict=True):
        want = ordinary(raw, seed, settings, keep_aspect=keep_aspect)
        assert np.abs(image.astype(int) - want).max() <= 1, name


def test_colours_are_those_of_a_training_on_cpus() -> None:
    jpegs = [*JPEGS.values()] * 4
    seeds = range(len(jpegs))
    found = on_device(jpegs, seeds, EVERYTHING)
    want = np.stack(
        [ordinary(*one, EVERYTHING, keep_aspect=False) for one in zip(jpegs, seeds, strict=True)]
    )
    # a grey level before colours is up to 1.4 ** 3 levels after them
    assert np.abs(found.astype(int) - want).max() <= 4
    assert np.abs(found.astype(int) - want).mean() < 0.05


def test_an_erased_rectangle_has_the_mean_of_the_image() -> None:
    settings = AugmentConfig(zoom=0, crop=0, rotate=0, flip=False, colour="none", gray=0, erase=1)
    seeds = [3, 4]
    found = on_device([JPEGS["of a shard"]] * 2, seeds, settings)
    untouched = on_device([JPEGS["of a shard"]], [3], settings.model_copy(update={"erase": 0}))[0]
    for image, seed in zip(found, seeds, strict=True):
        is_changed = (image != untouched).any(axis=2)
        assert 0.01 < is_changed.mean() < 0.25
        mean = np.round(untouched.reshape(-1, 3).mean(axis=0))
        assert (image[is_changed] == mean).all()
        assert np.array_equal(
            image, augment_image(untouched, params_of(seed, settings), linear=False)
        )


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        (b"", Failure.UNREADABLE),
        (b"no image at all", Failure.UNSUPPORTED),
        (JPEGS["odd"][:900], Failure.TRUNCATED),
    ],
)
def test_a_damaged_jpeg_is_a_failure_among_others(raw: bytes, failure: Failure) -> None:
    assert decode_on_device([JPEGS["odd"], raw, JPEGS["gray"]], CPU) is failure


@pytest.mark.gpu
def test_nvjpeg_decodes_as_libjpeg_turbo_does() -> None:
    settings = EVERYTHING.model_copy(update={"colour": "none", "gray": 0})
    jpegs = [*JPEGS.values()] * 4
    seeds = range(len(jpegs))
    on_gpu = on_device(jpegs, seeds, settings, device=torch.device("cuda"))
    on_cpu = on_device(jpegs, seeds, settings)
    difference = np.abs(on_gpu.astype(int) - on_cpu)
    assert difference.mean() < 1  # nvJPEG does not interpolate halved colours as libjpeg-turbo does
    assert np.percentile(difference, 99) <= 12
