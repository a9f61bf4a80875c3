"""Random changes of an image depend on its seed, not on the other images of the batch."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from no_waiting import NoWaiting
from torch import Tensor

from ctc_ray.config.training import AugmentConfig, Colour
from ctc_ray.images import augment
from ctc_ray.images.augment import AugmentParams, params_of, sample_params
from ctc_ray.images.decode import Decoded
from ctc_ray.images.sampling import Geometry, sample_square

NOTHING = AugmentConfig(zoom=0, crop=0, rotate=0, flip=False, colour="none")
COLOURS: tuple[Colour, ...] = ("none", "little", "full_fast", "full_randomized")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny tensors lose more by waiting for threads than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def apply_params(
    images_BCHW: Tensor, params: Sequence[AugmentParams], colour: Colour, *, size: int
) -> Tensor:
    """Geometry and colours, as training applies them one after the other."""
    moved = [
        sample_square(as_decoded(image), one.geometry, image_size=size, keep_aspect=False)
        for image, one in zip(images_BCHW, params, strict=True)
    ]
    stacked = np.stack(moved) if moved else np.zeros((0, size, size, 3), np.uint8)
    return augment.apply_params(torch.from_numpy(stacked).permute(0, 3, 1, 2), params, colour)


def as_decoded(image_CHW: Tensor) -> Decoded:
    pixels = np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy())
    height, width = pixels.shape[:2]
    return Decoded(pixels, width, height, (0, 0, width, height))


def augment_batch(
    images_BCHW: Tensor, seeds: Sequence[int], settings: AugmentConfig, *, size: int
) -> Tensor:
    params = [params_of(seed, settings) for seed in seeds]
    return apply_params(images_BCHW, params, settings.colour, size=size)


def smooth(n_images: int = 5, side: int = 40, seed: int = 0) -> Tensor:
    coarse = torch.rand(n_images, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (images * 255).to(torch.uint8)


def flat(red: int, green: int, blue: int, side: int = 8) -> Tensor:
    return (
        torch.tensor([red, green, blue], dtype=torch.uint8)
        .view(1, 3, 1, 1)
        .repeat(1, 1, side, side)
    )


def painted(images_BCHW: Tensor, params: AugmentParams, colour: Colour) -> list[int]:
    """The middle pixel after a change of colour."""
    size = images_BCHW.shape[2]
    image_CHW = apply_params(images_BCHW, [params], colour, size=size)[0]
    return image_CHW[:, size // 2, size // 2].tolist()


def farthest(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("colour", COLOURS)
def test_a_batch_equals_its_images_one_by_one(colour: Colour) -> None:
    images, seeds = smooth(19), list(range(19))
    settings = AugmentConfig(colour=colour)
    batch = augment_batch(images, seeds, settings, size=32)
    alone = torch.cat([augment_batch(images[k : k + 1], [k], settings, size=32) for k in range(19)])
    assert batch.shape == (19, 3, 32, 32)
    assert batch.dtype == torch.uint8
    assert farthest(batch, alone) <= 1


def test_same_seed_same_image_and_another_seed_another() -> None:
    images = smooth(1).repeat(2, 1, 1, 1)
    first = augment_batch(images, [7, 8], AugmentConfig(), size=32)
    assert torch.equal(first, augment_batch(images, [7, 8], AugmentConfig(), size=32))
    assert farthest(first[0], first[1]) > 5


def test_nothing_switched_on_changes_nothing() -> None:
    images = smooth()
    before = images.clone()
    result = augment_batch(images, [0] * 5, NOTHING, size=40)
    assert torch.equal(result, images)
    assert torch.equal(images, before)
    assert result.data_ptr() != images.data_ptr()


def test_an_empty_batch_stays_empty() -> None:
    assert augment_batch(smooth()[:0], [], AugmentConfig(), size=32).shape == (0, 3, 32, 32)


def test_flip_mirrors_left_and_right_half_of_the_time() -> None:
    images = smooth(1).repeat(200, 1, 1, 1)
    flipped = augment_batch(
        images, list(range(200)), NOTHING.model_copy(update={"flip": True}), size=40
    )
    is_same = (flipped == images).flatten(1).all(dim=1)
    is_mirrored = (flipped == images.flip(3)).flatten(1).all(dim=1)
    assert bool((is_same ^ is_mirrored).all())
    assert 70 < int(is_mirrored.sum()) < 130


def test_a_quarter_turn_is_counter_clockwise() -> None:
    images = smooth()
    turned = apply_params(images, [AugmentParams(Geometry(angle=90))] * 5, "none", size=40)
    assert farthest(turned, torch.rot90(images, 1, (2, 3))) <= 1


def test_rotation_then_flip_is_the_order() -> None:
    images = smooth()
    changed = apply_params(
        images, [AugmentParams(Geometry(angle=90, flip=-1))] * 5, "none", size=40
    )
    assert farthest(changed, torch.rot90(images, 1, (2, 3)).flip(3)) <= 1


def test_rotation_fills_the_corners_with_black_and_keeps_the_middle() -> None:
    turned = apply_params(
        flat(200, 200, 200, 64), [AugmentParams(Geometry(angle=45))], "none", size=64
    )[0, 0]
    assert turned[0, 0] == turned[0, -1] == turned[-1, 0] == turned[-1, -1] == 0
    assert int(turned[16:48, 16:48].min()) == 200


def test_zoom_out_pads_with_black_and_zoom_in_shows_the_middle() -> None:
    images = flat(100, 150, 200, 64)
    out = apply_params(images, [AugmentParams(Geometry(zoom=2))], "none", size=64)[0, 0]
    assert int(out[:15].max()) == int(out[:, 49:].max()) == 0
    assert int(out[17:47, 17:47].min()) == 100
    framed = torch.zeros_like(images)
    framed[:, :, 16:48, 16:48] = 255
    inside = apply_params(framed, [AugmentParams(Geometry(zoom=0.5))], "none", size=32)
    assert int(inside[:, :, 1:-1, 1:-1].min()) == 255


@pytest.mark.parametrize(
    ("left", "top", "expected"),
    [(0, 0, (0, 0)), (1, 0, (0, 20)), (0, 1, (20, 0)), (1, 1, (20, 20))],
)
def test_crop_takes_its_share_at_its_position(
    left: float, top: float, expected: tuple[int, int]
) -> None:
    images = smooth()
    cropped = apply_params(
        images, [AugmentParams(Geometry(crop=0.5, left=left, top=top))] * 5, "none", size=20
    )
    y, x = expected
    assert farthest(cropped, images[:, :, y : y + 20, x : x + 20]) <= 1


def test_wide_images_are_rotated_without_shearing() -> None:
    wide = torch.zeros(1, 3, 32, 64, dtype=torch.uint8)
    wide[:, :, 12:20, 28:36] = 255  # a square of 8 in the middle
    turned = apply_params(wide, [AugmentParams(Geometry(angle=90))], "none", size=64)[0, 0]
    lit = (turned > 127).nonzero()
    # the output squeezes the width by 1 and stretches the height by 2
    assert (lit.amax(0) - lit.amin(0) + 1).tolist() == [16, 8]


def test_drawn_numbers_stay_in_their_ranges() -> None:
    settings = AugmentConfig(zoom=0.1, crop=0.2, rotate=5)
    samples = [sample_params(np.random.default_rng(seed), settings) for seed in range(500)]
    for name, low, high in [
        *(("zoom", 0.9, 1.1), ("crop", 0.8, 1), ("angle", -5, 5), ("left", 0, 1), ("top", 0, 1)),
        *(("brightness", -0.2, 0.2), ("saturation", 0.8, 1.2), ("hue", -0.05, 0.05)),
        *(("contrast", 0.9, 1.3), ("blue", -0.05, 0.05), ("red", -0.05, 0.05)),
    ]:
        owners = [one.geometry if hasattr(one.geometry, name) else one for one in samples]
        values = np.array([getattr(owner, name) for owner in owners])
        assert low <= values.min() < low + 0.1 * (high - low), name
        assert high - 0.1 * (high - low) < values.max() <= high, name
    assert {one.order for one in samples} == {0, 1, 2, 3}
    assert {one.geometry.flip for one in samples} == {-1.0, 1.0}


def test_switching_one_thing_off_leaves_the_others_as_they_were() -> None:
    with_crop = sample_params(np.random.default_rng(3), AugmentConfig())
    without = sample_params(np.random.default_rng(3), AugmentConfig(crop=0, flip=False))
    assert without.geometry.crop == 1
    assert without.geometry.flip == 1
    assert (without.geometry.angle, without.geometry.zoom, without.hue) == (
        with_crop.geometry.angle,
        with_crop.geometry.zoom,
        with_crop.hue,
    )


@pytest.mark.parametrize("colour", COLOURS)
def test_infrared_images_stay_gray(colour: Colour) -> None:
    gray = smooth()[:, :1].repeat(1, 3, 1, 1)
    seeds = list(range(5))
    changed = augment_batch(gray, seeds, AugmentConfig(colour=colour), size=32)
    assert farthest(changed.amax(1), changed.amin(1)) == 0
    assert (
        farthest(changed, augment_batch(gray, seeds, AugmentConfig(colour="none"), size=32)) > 5
    ) == (colour != "none")


def test_brightness_is_added_and_clipped() -> None:
    plain = AugmentParams(saturation=1, brightness=0.2)
    assert painted(flat(100, 50, 250), plain, "little") == [151, 101, 255]
    dark = AugmentParams(brightness=-0.2)
    assert painted(flat(100, 60, 250), dark, "little") == [49, 9, 199]


def test_saturation_moves_colours_away_from_gray() -> None:
    # HSV: V 200, S 0.5 -> 0.6: the least channel becomes 200 * 0.4, the middle one keeps its hue
    assert painted(flat(200, 150, 100), AugmentParams(saturation=1.2), "little") == [200, 140, 80]
    # S is at most 1
    assert painted(flat(200, 100, 10), AugmentParams(saturation=1.2), "little") == [200, 95, 0]


@pytest.mark.parametrize(
    ("turn", "expected"),
    [(1 / 3, [0, 240, 0]), (-1 / 3, [0, 0, 240]), (1 / 6, [240, 240, 0]), (0.5, [0, 240, 240])],
)
def test_hue_turns_red_around_the_circle(turn: float, expected: list[int]) -> None:
    assert painted(flat(240, 0, 0), AugmentParams(hue=turn), "full_randomized") == expected


def test_contrast_stretches_around_the_mean_of_the_image() -> None:
    halves = flat(100, 100, 100)
    halves[..., 4:] = 140
    params = AugmentParams(contrast=1.3)
    result = apply_params(halves, [params], "full_randomized", size=8)[0, 0, 0]
    assert result[[0, -1]].tolist() == [94, 146]  # 120 -+ 26


def test_chroma_follows_the_weights_of_ycbcr() -> None:
    params = AugmentParams(blue=0.05, red=-0.05, brightness=0.1)
    # + 25.5, and -17.9 / + 4.7 / + 22.6 for red, green and blue
    assert painted(flat(100, 110, 120), params, "full_fast") == [108, 140, 168]


# Brightness first: (149, 74, -11) has S above 1, cut to 1: the middle is 149 - 75 * 149 / 160.
# Saturation first: (200, 110, 8), then 51 less.
@pytest.mark.parametrize(
    ("colour", "saturation_first"), [("little", {1, 2, 3}), ("full_randomized", {1, 3})]
)
def test_order_of_colour_operations_is_the_one_drawn(
    colour: Colour, saturation_first: set[int]
) -> None:
    for order in range(4):
        params = AugmentParams(brightness=-0.2, saturation=1.2, order=order)
        middle = 59 if order in saturation_first else 79
        assert painted(flat(200, 125, 40), params, colour) == [149, middle, 0]


ON_DEVICE = [
    *(AugmentConfig(colour=colour) for colour in (*COLOURS, "standard")),
    AugmentConfig(colour="full_randomized", gray=0.5),
]


@pytest.mark.parametrize("settings", ON_DEVICE, ids=lambda one: f"{one.colour}, {one.gray}")
def test_colours_need_no_value_of_a_pixel_on_the_cpu(settings: AugmentConfig) -> None:
    images = smooth(19)
    with NoWaiting():
        augment.augment_batch(images, range(19), settings, linear=True)


def test_an_operation_that_waits_is_found() -> None:
    images = smooth(2)
    for waits in (
        lambda: images.nonzero(),
        lambda: images[images > 3],
        lambda: images.max().item(),
    ):
        with pytest.raises(AssertionError), NoWaiting():
            waits()


@pytest.mark.gpu
@pytest.mark.parametrize("settings", ON_DEVICE, ids=lambda one: f"{one.colour}, {one.gray}")
def test_colours_on_a_gpu_are_those_of_the_cpu_and_wait_for_nothing(
    settings: AugmentConfig,
) -> None:
    images, seeds = smooth(19), range(19)
    on_cpu = augment.augment_batch(images, seeds, settings, linear=True)
    there = images.cuda()
    augment.augment_batch(there, seeds, settings, linear=True)  # libraries begin
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_gpu = augment.augment_batch(there, seeds, settings, linear=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert farthest(on_cpu, on_gpu.cpu()) <= 1
