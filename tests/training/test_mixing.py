from typing import Any

import pytest
import torch

from ctc_ray.training.batches import IGNORE_INDEX
from ctc_ray.training.losses import LossSettings, Target, label_weights, multi_head_loss
from ctc_ray.training.mixing import mix

SEEDS = tuple(range(100, 108))


def images() -> torch.Tensor:
    """Image k has the value 10 k everywhere."""
    return (10 * torch.arange(8, dtype=torch.uint8))[:, None, None, None].expand(8, 3, 20, 30)


def labels(missing: int = 0) -> dict[str, torch.Tensor]:
    values = torch.arange(8) % 3
    values[:missing] = IGNORE_INDEX
    return {"a": values}


def mixed(kind: Any, seeds: tuple[int, ...] = SEEDS, alpha: float = 1.0) -> Any:
    return mix(images(), labels(), seeds, kind=kind, alpha=alpha)


def test_nothing_is_mixed_unless_asked_for() -> None:
    found, targets = mixed("none")
    assert torch.equal(found, images())
    assert [target.share for target in targets] == [1.0]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("seed", range(20))
def test_labels_have_the_share_that_their_images_have(kind: str, seed: int) -> None:
    seeds = tuple(range(seed, seed + 8))
    found, (own, other) = mixed(kind, seeds)
    assert own.share + other.share == pytest.approx(1)
    assert own.share >= 0.5 - 0.05  # the sides of a rectangle are whole pixels
    ids = torch.arange(8)
    partner = mix(images(), {"a": ids}, seeds, kind=kind, alpha=1.0)[1][1].labels["a"]
    assert torch.equal(other.labels["a"], labels()["a"][partner])
    mean = found.float().mean(dim=(1, 2, 3))
    expected = own.share * 10 * ids + other.share * 10 * partner
    assert torch.allclose(mean, expected.float(), atol=1e-3)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_same_seeds_mix_alike_and_others_do_not(kind: str) -> None:
    assert torch.equal(mixed(kind)[0], mixed(kind)[0])
    assert not torch.equal(mixed(kind)[0], mixed(kind, tuple(range(8)))[0])


def test_one_image_has_nothing_to_be_mixed_with() -> None:
    one = images()[:1]
    found, targets = mix(one, {"a": torch.tensor([1])}, (3,), kind="mixup", alpha=1.0)
    assert torch.equal(found, one)
    assert len(targets) == 1


@pytest.mark.parametrize("missing", [0, 3, 7, 8])
def test_mixed_batches_with_missing_labels_accumulate_as_one(missing: int) -> None:
    rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, targets = mix(images(), labels(missing), SEEDS, kind="mixup", alpha=1.0)
    settings = LossSettings()
    whole = rows.clone().requires_grad_()
    loss = multi_head_loss({"a": whole}, targets, settings)
    loss.backward()
    parts = [
        [Target({"a": target.labels["a"][part]}, target.share) for target in targets]
        for part in (slice(0, 3), slice(3, 8))
    ]
    weights = label_weights([target for part in parts for target in part], settings)
    summed = rows.clone().requires_grad_()
    for part, of_part in zip((slice(0, 3), slice(3, 8)), parts, strict=True):
        multi_head_loss({"a": summed[part]}, of_part, settings, weights).backward()
    assert whole.grad is not None
    assert summed.grad is not None
    assert torch.isfinite(whole.grad).all()
    assert torch.allclose(whole.grad, summed.grad, rtol=1e-9, atol=1e-12)
    if missing == 0:
        soft = sum(
            target.share * torch.nn.functional.one_hot(target.labels["a"], 3) for target in targets
        )
        assert loss.item() == pytest.approx(
            torch.nn.functional.cross_entropy(rows, soft.double()).item()
        )
