import numpy as np
import pytest
from PIL import Image

from ctc_ray.images.stacking import stack_frames

FRAMES = [np.random.default_rng(k).integers(0, 256, (40, 50, 3), np.uint8) for k in range(4)]
GRAY = [np.asarray(Image.fromarray(frame).convert("L")) for frame in FRAMES]


@pytest.mark.parametrize(("n", "channels"), [(1, (0, 0, 0)), (2, (0, 1, 1)), (3, (0, 1, 2))])
def test_a_stack_has_the_gray_frames_as_channels_and_repeats_the_last(
    n: int, channels: tuple[int, int, int]
) -> None:
    stack = stack_frames(FRAMES[:n])
    assert stack.dtype == np.uint8
    assert np.array_equal(stack, np.stack([GRAY[k] for k in channels], axis=2))


@pytest.mark.parametrize("n", [0, 4])
def test_a_stack_of_none_or_more_than_three_is_an_error(n: int) -> None:
    with pytest.raises(ValueError, match=f"a stack of {n} images"):
        stack_frames(FRAMES[:n])
