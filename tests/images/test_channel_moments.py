from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_ray.images.channel_moments import channel_moments
from ctc_ray.images.resize import ShardImage, to_shard_jpeg


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 3000),
    st.sampled_from([1, 3]),
    st.sampled_from([(0, 256), (0, 1), (255, 256), (250, 256)]),
    st.integers(0, 2**32),
)
def test_moments_are_whole_numbers_of_every_fourth_row(
    height: int, width: int, n_channels: int, values: tuple[int, int], seed: int
) -> None:
    shape = (height, width, n_channels)
    image = np.random.default_rng(seed).integers(*values, shape, dtype=np.uint8)
    rows = image[::4].astype(object)  # numbers of Python: exact
    if n_channels == 1:
        rows = np.repeat(rows, 3, axis=2)
    n = rows.shape[0] * rows.shape[1]
    sums = [rows[:, :, c].sum() * 65536 // n for c in range(3)]
    squares = [(rows[:, :, c] ** 2).sum() * 65536 // n for c in range(3)]
    assert channel_moments(image) == (*sums, *squares)


@pytest.mark.real_data
def test_every_fourth_row_of_photographs_is_like_all_rows(shared_data: Path) -> None:
    files = sorted(p for p in (shared_data / "photos").rglob("*") if p.suffix.lower() == ".jpg")
    images = [
        made
        for path in files[:40]
        if isinstance(
            made := to_shard_jpeg(
                path.read_bytes(),
                smallest_side=400,
                quality=75,
                max_pixels=10**9,
                truncated="fail",
                reencode_small=True,
            ),
            ShardImage,
        )
    ]
    assert len(images) > 20
    import simplejpeg

    pixels = [simplejpeg.decode_jpeg(image.jpeg, "RGB").reshape(-1, 3) / 255 for image in images]
    mean = np.mean([p.mean(axis=0) for p in pixels], axis=0)
    std = np.sqrt(np.mean([(p**2).mean(axis=0) for p in pixels], axis=0) - mean**2)
    moments = np.mean([image.moments for image in images], axis=0) / 65536
    assert moments[:3] / 255 == pytest.approx(mean, abs=0.002)
    assert np.sqrt(moments[3:] - moments[:3] ** 2) / 255 == pytest.approx(std, abs=0.004)
