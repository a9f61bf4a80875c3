"""A batch that is sampled on a device is what `sample_square` makes of its images, one by one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from no_waiting import NoWaiting
from PIL import Image
from torch import Tensor

from ctc_ray.images.decode import Decoded, Pixels
from ctc_ray.images.device_sampling import sample_squares
from ctc_ray.images.sampling import WHOLE, Geometry, sample_square


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def one_by_one(
    images: Sequence[Pixels], geometries: Sequence[Geometry], size: int, *, keep_aspect: bool
) -> np.ndarray:
    found = []
    for image, geometry in zip(images, geometries, strict=True):
        height, width = image.shape[:2]
        whole = Decoded(image, width, height, (0, 0, width, height))
        found.append(sample_square(whole, geometry, image_size=size, keep_aspect=keep_aspect))
    return np.stack(found)


def together(
    images: Sequence[Pixels],
    geometries: Sequence[Geometry],
    size: int,
    *,
    keep_aspect: bool,
    device: str = "cpu",
) -> np.ndarray:
    found = sample_squares(
        [torch.from_numpy(image.copy()).permute(2, 0, 1).to(device) for image in images],
        geometries,
        image_size=size,
        keep_aspect=keep_aspect,
    )
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.dtype == torch.uint8
    return found.cpu().permute(0, 2, 3, 1).numpy()


def farthest(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


shares = st.floats(0, 1)
geometries = st.builds(
    Geometry,
    zoom=st.floats(0.5, 1.5),
    crop=st.floats(0.5, 1),
    left=shares,
    top=shares,
    angle=st.sampled_from([0.0, 0.0, 1e-9, -5.0, 3.7, 45.0, 90.0, -180.0]),
    flip=st.sampled_from([-1.0, 1.0]),
)
sizes = st.tuples(st.integers(3, 200), st.integers(3, 200))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(sizes, geometries), min_size=1, max_size=4),
    st.sampled_from([1, 16, 33, 97]),
    st.booleans(),
)
def test_noise_is_sampled_within_a_grey_level(made, size: int, keep_aspect: bool) -> None:
    """No image is harder: neighbours differ by up to 255."""
    images = [noise(*shape, seed=k) for k, (shape, _) in enumerate(made)]
    chosen = [geometry for _, geometry in made]
    want = one_by_one(images, chosen, size, keep_aspect=keep_aspect)
    assert farthest(together(images, chosen, size, keep_aspect=keep_aspect), want) <= 1


@pytest.mark.real_data
@pytest.mark.parametrize("keep_aspect", [True, False])
@pytest.mark.parametrize("size", [64, 224, 299])
def test_photographs_are_sampled_within_a_grey_level(
    size: int, keep_aspect: bool, shared_data: Path
) -> None:
    """Measured: at most 1, in the mean .0123 and less."""
    images = []
    for number, photo in enumerate(sorted((shared_data / "photos").rglob("*.JPG"))[::10]):
        with Image.open(photo) as image:
            small = (533, 400) if number % 2 else (213, 160)
            shard = image.convert("RGB").resize(small, Image.Resampling.LANCZOS)
            images.append(np.asarray(shard))
    rng = np.random.default_rng(size)
    chosen = [
        Geometry(
            zoom=rng.uniform(0.5, 1.5),
            crop=rng.uniform(0.5, 1),
            left=rng.random(),
            top=rng.random(),
            angle=float(rng.choice([0.0, rng.uniform(-20, 20)])),
            flip=float(rng.choice([-1, 1])),
        )
        for _ in images
    ]
    found = together(images, chosen, size, keep_aspect=keep_aspect)
    want = one_by_one(images, chosen, size, keep_aspect=keep_aspect)
    assert len(images) >= 10
    assert farthest(found, want) <= 1
    assert np.abs(found.astype(int) - want).mean() <= 0.05


def test_images_keep_their_order_whatever_their_sizes_and_rotations() -> None:
    shapes = [(30, 40), (40, 30), (30, 40), (25, 25), (40, 30)]
    images = [np.full((*shape, 3), 10 * k, np.uint8) for k, shape in enumerate(shapes)]
    chosen = [WHOLE, Geometry(angle=1e-3), Geometry(angle=-1e-3), Geometry(flip=-1), WHOLE]
    found = together(images, chosen, 8, keep_aspect=True)
    assert found[:, 4, 4, 0].tolist() == [0, 10, 20, 30, 40]


def test_many_images_of_one_size_are_those_of_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [noise(50, 70, seed) for seed in range(9)]
    chosen = [Geometry(zoom=1 + k / 20, angle=k % 3) for k in range(9)]
    whole = together(images, chosen, 32, keep_aspect=False)
    monkeypatch.setattr("ctc_ray.images.device_sampling._PIXELS_AT_ONCE", 50 * 70 * 2)
    assert farthest(together(images, chosen, 32, keep_aspect=False), whole) <= 1


def mixed() -> tuple[list[Tensor], list[Geometry]]:
    images = [torch.from_numpy(noise(60, 90, k)).permute(2, 0, 1) for k in range(4)]
    chosen = [WHOLE, Geometry(zoom=1.2), Geometry(angle=4), Geometry(angle=9, zoom=0.7)]
    return images, chosen


def test_sampling_needs_no_value_of_a_pixel_on_the_cpu() -> None:
    images, chosen = mixed()
    with NoWaiting():
        sample_squares(images, chosen, image_size=24, keep_aspect=False)


@pytest.mark.gpu
def test_sampling_on_a_gpu_is_that_of_the_cpu_and_waits_for_nothing() -> None:
    images, chosen = mixed()
    there = [image.cuda() for image in images]
    on_cpu = sample_squares(images, chosen, image_size=24, keep_aspect=False)
    sample_squares(there, chosen, image_size=24, keep_aspect=False)  # libraries begin
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_gpu = sample_squares(there, chosen, image_size=24, keep_aspect=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert on_gpu.is_cuda
    assert farthest(on_gpu.cpu().numpy(), on_cpu.numpy()) <= 1
