import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F  # noqa: N812  # everyone's name for it

from ctc_ray.images.resize import pillow_to_input
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.bundle import Bundle, Provenance
from ctc_ray.models.classifier import Classifier, scaling_matrix
from ctc_ray.models.multi_head import MultiHeadModel

CPU = torch.device("cpu")


def classifier(*, keep_aspect: bool = False, size: int = 32) -> Classifier:
    torch.manual_seed(0)
    model = MultiHeadModel(make_backbone("small_cnn"), LabelSpace({"a": ("x", "y"), "b": ("z",)}))
    none = Provenance(config={}, data_fingerprint="", metrics={}, n_training_images={})
    return Classifier(Bundle(model, size, keep_aspect, none))


def photo(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=generator)


def answer(model: Classifier, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(image)[0]


def test_scaling_to_half_is_the_triangle_filter_by_hand() -> None:
    # an output pixel spans 2 input pixels; weights 1 - |distance| / 2 at distances .5 and 1.5
    expected = torch.tensor([[0.75, 0.75, 0.25, 0.0], [0.0, 0.25, 0.75, 0.75]]) / 1.75
    assert torch.allclose(scaling_matrix(4, 2, n_used=4, device=CPU), expected)


@pytest.mark.parametrize("n", [1, 5, 64, 333])
def test_image_that_has_the_size_is_left_as_it_is(n: int) -> None:
    assert torch.equal(scaling_matrix(n, n, n_used=n, device=CPU), torch.eye(n))


@pytest.mark.parametrize(("n_in", "n_out"), [(100, 64), (40, 64), (333, 64), (65, 64), (1, 8)])
def test_scaling_is_that_of_torch_and_pillow(n_in: int, n_out: int) -> None:
    row = torch.rand(1, 1, 1, n_in, generator=torch.Generator().manual_seed(n_in))
    theirs = F.interpolate(row, (1, n_out), mode="bilinear", antialias=True, align_corners=False)
    ours = row @ scaling_matrix(n_in, n_out, n_used=n_in, device=CPU).T
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_cutting_to_the_middle_is_the_same_as_slicing_first() -> None:
    row = torch.rand(1, 90)
    cut = row[:, 15:75] @ scaling_matrix(60, 20, n_used=60, device=CPU).T
    whole = row @ scaling_matrix(90, 20, n_used=60, device=CPU).T
    assert torch.allclose(whole[:, 1:-1], cut[:, 1:-1], atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(48, 90), (90, 48)])
def test_kept_aspect_looks_at_the_centre_square_only(height: int, width: int) -> None:
    image = photo(height, width)
    changed = image.clone()
    reach = 3  # pixels that the filter sees beyond the square
    top, left = (max(0, (n - 48) // 2 - reach) for n in (height, width))
    inside = (slice(None), slice(top, height - top), slice(left, width - left))
    changed[:] = 7
    changed[inside] = image[inside]
    model = classifier(keep_aspect=True)
    assert torch.equal(answer(model, image), answer(model, changed))
    changed[:, height // 2, width // 2] += 100
    assert not torch.equal(answer(model, image), answer(model, changed))


def test_probabilities_add_up_to_one_for_every_head() -> None:
    with torch.no_grad():
        for probs in classifier()(photo(20, 70)):
            assert torch.allclose(probs.sum(dim=1), torch.ones(1))


def test_answer_does_not_depend_on_the_other_images_of_the_batch() -> None:
    both = torch.cat([photo(40, 50), photo(40, 50).flip(2)])
    model = classifier()
    assert torch.allclose(answer(model, both)[1:], answer(model, both[1:]), atol=1e-6)


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("size", [(90, 120), (121, 77), (64, 64), (40, 300), (333, 250)])
def test_the_exported_scaling_is_that_of_prediction(
    size: tuple[int, int], keep_aspect: bool
) -> None:
    """For the same pixels; they differ by the rounding to whole numbers alone."""
    height, width = size
    rng = np.random.default_rng(height)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = pillow_to_input(
        Image.fromarray(pixels), image_size=64, keep_aspect=keep_aspect, max_pixels=10**6
    )
    used = (min(size), min(size)) if keep_aspect else size
    rows, columns = (
        scaling_matrix(n, 64, n_used=n_used, device=torch.device("cpu"))
        for n, n_used in zip(size, used, strict=True)
    )
    whole = torch.from_numpy(pixels).permute(2, 0, 1).float()
    theirs = (rows @ (whole @ columns.T)).permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 1.6
