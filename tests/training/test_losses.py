import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ctc_ray.config.optimization import LossConfig
from ctc_ray.training.batches import IGNORE_INDEX
from ctc_ray.training.losses import (
    HeadLossSettings,
    LossSettings,
    Target,
    head_loss,
    head_settings,
    label_weights,
    multi_head_loss,
)


def logits(n: int, k: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_loss_is_the_mean_over_labelled_rows_weighted_over_heads() -> None:
    given = {"a": torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]), "b": torch.zeros(2, 4)}
    labels = {"a": torch.tensor([1, 0]), "b": torch.tensor([2, IGNORE_INDEX])}
    loss = multi_head_loss(given, [Target(labels)], LossSettings({"b": 0.5}))
    by_hand = (math.log(2) + math.log(4 / 3)) / 2 + 0.5 * math.log(4)
    assert loss.item() == pytest.approx(by_hand)
    found = label_weights([Target(labels)], LossSettings())
    assert {head: float(weight) for head, weight in found.items()} == {"a": 2, "b": 1}


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"label_smoothing": 0},
    "inverse": {"class_weights": "inverse"},
    "effective-number": {"class_weights": "effective-number", "beta": 0.9},
    "smoothing": {"label_smoothing": 0.1},
    "focal": {"focal_gamma": 2.0},
    "focal with weights": {"focal_gamma": 1.5, "class_weights": "inverse"},
    "adjusted": {"logit_adjustment": 1.0, "label_smoothing": 0},
}


def settings_of(kind: str) -> HeadLossSettings:
    made = head_settings(LossConfig(**KINDS[kind]), [70, 20, 10])
    weights, added = made.class_weights_K, made.adjustment_K
    return HeadLossSettings(
        None if weights is None else weights.double(),
        None if added is None else added.double(),
        made.label_smoothing,
        made.focal_gamma,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_label_change_neither_loss_nor_gradient(kind: str) -> None:
    labels = torch.tensor([0, IGNORE_INDEX, 2, IGNORE_INDEX, 1, 1])
    is_labelled = labels != IGNORE_INDEX
    with_missing = logits(6).requires_grad_()
    only_labelled = logits(6)[is_labelled].clone().requires_grad_()
    settings = LossSettings(heads={"a": settings_of(kind)})
    one = multi_head_loss({"a": with_missing}, [Target({"a": labels})], settings)
    two = multi_head_loss({"a": only_labelled}, [Target({"a": labels[is_labelled]})], settings)
    one.backward()
    two.backward()
    assert one.item() == pytest.approx(two.item(), rel=1e-12)
    assert with_missing.grad is not None
    assert only_labelled.grad is not None
    assert torch.allclose(with_missing.grad[is_labelled], only_labelled.grad, rtol=1e-9)
    assert not with_missing.grad[~is_labelled].any()


@pytest.mark.parametrize("kind", KINDS)
def test_head_without_any_label_adds_nothing_and_is_no_nan(kind: str) -> None:
    given = logits(3).requires_grad_()
    missing = torch.full((3,), IGNORE_INDEX)
    settings = LossSettings(heads={"a": settings_of(kind)})
    loss = multi_head_loss({"a": given}, [Target({"a": missing})], settings)
    loss.backward()
    assert loss.item() == 0
    assert given.grad is not None
    assert not given.grad.any()


@pytest.mark.parametrize("missing", [0.0, 0.5, 0.97])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_accumulated_batches_is_that_of_one_large_batch(
    kind: str, missing: float
) -> None:
    rows, generator = logits(64), torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (64,), generator=generator)
    labels[torch.rand(64, generator=generator) < missing] = IGNORE_INDEX
    settings = LossSettings(heads={"a": settings_of(kind)})
    whole = rows.clone().requires_grad_()
    multi_head_loss({"a": whole}, [Target({"a": labels})], settings).backward()
    parts = [Target({"a": part}) for part in labels.split([10, 30, 1, 23])]
    weights = label_weights(parts, settings)
    summed = rows.clone().requires_grad_()
    for logits_of_part, part in zip(summed.split([10, 30, 1, 23]), parts, strict=True):
        multi_head_loss({"a": logits_of_part}, [part], settings, weights).backward()
    assert whole.grad is not None
    assert summed.grad is not None
    assert torch.allclose(whole.grad, summed.grad, rtol=1e-9, atol=1e-12)


def test_class_weights_are_those_of_torch_and_of_the_paper() -> None:
    n = [900, 90, 10]
    inverse = head_settings(LossConfig(class_weights="inverse"), n).class_weights_K
    assert inverse is not None
    assert (inverse * torch.tensor(n)).tolist() == pytest.approx([1000 / 3] * 3)
    effective = head_settings(LossConfig(class_weights="effective-number", beta=0.99), n)
    assert effective.class_weights_K is not None
    by_hand = torch.tensor([(1 - 0.99) / (1 - 0.99**k) for k in n])
    ratio = effective.class_weights_K / by_hand
    assert ratio.tolist() == pytest.approx([float(ratio[0])] * 3)
    labels = torch.tensor([0, 2, 1, 2])
    loss = multi_head_loss(
        {"a": logits(4).float()},
        [Target({"a": labels})],
        LossSettings(heads={"a": HeadLossSettings(inverse)}),
    )
    expected = torch.nn.functional.cross_entropy(logits(4).float(), labels, weight=inverse)
    assert loss.item() == pytest.approx(expected.item())


def test_a_class_without_a_training_image_has_a_finite_weight() -> None:
    for kind in ("inverse", "effective-number"):
        made = head_settings(LossConfig.model_validate({"class_weights": kind}), [5, 0])
        assert made.class_weights_K is not None
        assert torch.isfinite(made.class_weights_K).all()
    adjusted = head_settings(LossConfig(logit_adjustment=1.0), [5, 0]).adjustment_K
    assert adjusted is not None
    assert torch.isfinite(adjusted).all()


def test_focal_loss_is_that_of_its_formula() -> None:
    rows, labels = logits(5), torch.tensor([0, 1, 2, 0, 1])
    p = rows.softmax(dim=1)[range(5), labels]
    by_hand = (-((1 - p) ** 2) * p.log()).sum()
    found = head_loss(rows, labels, HeadLossSettings(focal_gamma=2.0))
    assert found.item() == pytest.approx(by_hand.item())


def test_logit_adjustment_is_balanced_softmax() -> None:
    rows, labels, n = logits(5), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([70.0, 20.0, 10.0])
    odds = n.double() * rows.exp()
    by_hand = -(odds / odds.sum(dim=1, keepdim=True)).log()[range(5), labels].sum()
    found = head_loss(rows, labels, settings_of("adjusted"))
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_a_sure_answer_has_a_finite_focal_gradient() -> None:
    rows = torch.tensor([[80.0, 0.0, 0.0]], requires_grad=True)
    head_loss(rows, torch.tensor([0]), HeadLossSettings(focal_gamma=0.5)).backward()
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()
