import pytest
import torch

from ctc_ray.models.small_cnn import SmallCnn


@pytest.mark.parametrize("size", [16, 50, 64, 97])
def test_takes_images_of_any_size_from_16_pixels(size: int) -> None:
    features = SmallCnn().eval()(torch.zeros(2, 3, size, size + 3))
    assert features.shape == (2, SmallCnn.num_features)


def test_one_image_alone_gives_the_same_features_as_in_a_batch() -> None:
    network = SmallCnn().eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(network(images)[:1], network(images[:1]), atol=1e-4)
