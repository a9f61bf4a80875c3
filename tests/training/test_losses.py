import math

import pytest
import torch

from ctc_ray.training.batches import IGNORE_INDEX
from ctc_ray.training.losses import multi_head_loss


def test_loss_is_the_mean_over_labelled_rows_weighted_over_heads() -> None:
    logits = {"a": torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]), "b": torch.zeros(2, 4)}
    labels = {"a": torch.tensor([1, 0]), "b": torch.tensor([2, IGNORE_INDEX])}
    result = multi_head_loss(logits, labels, {"b": 0.5})
    by_hand = (math.log(2) + math.log(4 / 3)) / 2 + 0.5 * math.log(4)
    assert result.loss.item() == pytest.approx(by_hand)
    assert [int(part.n) for part in result.heads.values()] == [2, 1]


def test_rows_without_label_change_neither_loss_nor_gradient() -> None:
    rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, IGNORE_INDEX, 2, IGNORE_INDEX, 1, 1])
    is_labelled = labels != IGNORE_INDEX
    with_missing = rows.clone().requires_grad_()
    only_labelled = rows[is_labelled].clone().requires_grad_()
    one = multi_head_loss({"a": with_missing}, {"a": labels}, {}).loss
    two = multi_head_loss({"a": only_labelled}, {"a": labels[is_labelled]}, {}).loss
    one.backward()
    two.backward()
    assert one.item() == two.item()
    assert with_missing.grad is not None
    assert only_labelled.grad is not None
    assert torch.equal(with_missing.grad[is_labelled], only_labelled.grad)
    assert not with_missing.grad[~is_labelled].any()


def test_head_without_any_label_adds_nothing_and_is_no_nan() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    missing = torch.full((3,), IGNORE_INDEX)
    result = multi_head_loss({"a": logits}, {"a": missing}, {})
    result.loss.backward()
    assert result.loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
