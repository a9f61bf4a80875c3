import colorsys

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from ctc_ray.config.training import AugmentConfig
from ctc_ray.images.augment import augment_batch, augment_image, change_batch, params_of
from ctc_ray.images.colours import LUMA, LinearColours, change_colours

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(40, 200, (20, 30, 3), dtype=np.uint8)
GRAY = np.repeat(RNG.integers(40, 200, (20, 30, 1), dtype=np.uint8), 3, axis=2)


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("factor", [0.7, 1.2])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_each_change_is_that_of_torchvision(name: str, factor: float) -> None:
    adjust = getattr(v2.functional, f"adjust_{name}")
    expected = adjust(tensor(IMAGE), factor)[0].permute(1, 2, 0).numpy().astype(int)
    found = change_colours(IMAGE, LinearColours(**{name: factor})).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_hue_turns_as_far_as_asked_and_keeps_the_luma() -> None:
    patch = np.full((4, 4, 3), (150, 90, 90), np.uint8)
    turned = change_colours(patch, LinearColours(hue=1 / 3))[0, 0]
    hue = colorsys.rgb_to_hsv(*(turned / 255))[0]
    assert min(hue, 1 - hue) == pytest.approx(1 / 3, abs=0.04)
    assert LUMA @ turned == pytest.approx(LUMA @ patch[0, 0], abs=1.5)
    assert np.abs(change_colours(IMAGE, LinearColours(hue=1.0)).astype(int) - IMAGE).max() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_a_gray_image_stays_gray(seed: int) -> None:
    linear = params_of(seed, AugmentConfig(colour="standard", hue=0.5)).linear
    changed = change_colours(GRAY, linear).astype(int)
    assert (changed.max(axis=2) - changed.min(axis=2)).max() <= 1
    assert linear != LinearColours()


def test_without_saturation_only_the_luma_is_left() -> None:
    changed = change_colours(IMAGE, LinearColours(saturation=0.0)).astype(int)
    assert np.abs(changed - (IMAGE @ LUMA)[..., None]).max() <= 1


def test_a_batch_on_a_device_is_changed_as_one_image_on_a_cpu() -> None:
    settings = AugmentConfig(colour="standard", gray=0.3)
    images = [RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(40)]
    params = [params_of(seed, settings).linear for seed in range(40)]
    one_by_one = tensor(*(change_colours(i, p) for i, p in zip(images, params, strict=True)))
    together = change_batch(tensor(*images), params)
    assert (together.int() - one_by_one.int()).abs().max() <= 1
    seeds = list(range(40))
    assert torch.equal(augment_batch(tensor(*images), seeds, settings, linear=True), together)
    assert torch.equal(augment_batch(tensor(*images), seeds, settings), tensor(*images))


def test_so_many_images_are_gray_and_erased_as_asked() -> None:
    settings = AugmentConfig(colour="standard", gray=0.2, erase=0.3)
    drawn = [params_of(seed, settings) for seed in range(2000)]
    assert np.mean([p.linear.saturation == 0 for p in drawn]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([p.erased is not None for p in drawn]) == pytest.approx(0.3, abs=0.03)
    others = [params_of(seed, AugmentConfig(colour="standard")) for seed in range(2000)]
    assert [p.geometry for p in drawn] == [p.geometry for p in others]


def test_a_gray_share_holds_for_the_colours_of_the_original_too() -> None:
    params = params_of(3, AugmentConfig(colour="full_fast", gray=1.0))
    changed = augment_image(IMAGE, params, linear=True).astype(int)
    assert (changed.max(axis=2) - changed.min(axis=2)).max() <= 1


def test_a_rectangle_is_filled_with_the_mean() -> None:
    settings = AugmentConfig(erase=1.0)
    shares = []
    large = RNG.integers(0, 256, (100, 150, 3), dtype=np.uint8)
    for seed in range(200):
        changed = augment_image(large, params_of(seed, settings), linear=False)
        is_filled = (changed != large).any(axis=2)
        rows, columns = np.flatnonzero(is_filled.any(axis=1)), np.flatnonzero(is_filled.any(axis=0))
        shares.append((np.ptp(rows) + 1) * (np.ptp(columns) + 1) / is_filled.size)
        mean = np.round(cv2.mean(large)[:3])
        assert (changed[is_filled] == mean).all()
    assert 0.015 < min(shares) < 0.04
    assert 0.17 < max(shares) < 0.22
