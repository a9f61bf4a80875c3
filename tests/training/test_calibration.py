import pytest
import torch

from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import IGNORE_INDEX
from ctc_ray.training.calibration import MIN_IMAGES, CalibrationCounts

LABELS = LabelSpace({"a": ("x", "y", "z")})


def answers(n: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels drawn from the softmax of logits, and logits that are surer by this factor."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, 3, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)
    return temperature * logits, labels


def counted(logits: torch.Tensor, labels: torch.Tensor, size: int = 1000) -> CalibrationCounts:
    counts = CalibrationCounts(LABELS)
    for some, own in zip(logits.split(size), labels.split(size), strict=True):
        counts.update({"a": some}, {"a": own})
    return counts


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_a_model_too_sure_is_found(temperature: float) -> None:
    found = counted(*answers(6000, temperature)).compute()["a"]
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.ece_after < 0.03
    assert found.ece_after <= found.ece_before + 0.005
    if temperature == 3.0:
        assert found.ece_before > 0.1


def test_the_loss_is_the_cross_entropy_of_the_divided_logits() -> None:
    logits, labels = answers(500, 2.0)
    counts = counted(logits, labels)
    for index in (0, 77, 200):
        t = counts.tried_T[index]
        expected = torch.nn.functional.cross_entropy(logits.double() / t, labels, reduction="sum")
        assert float(counts._losses["a"][index]) == pytest.approx(float(expected))


def test_the_error_is_that_of_its_definition() -> None:
    logits, labels = answers(3000, 3.0)
    probs = logits.double().softmax(dim=1)
    score, answer = probs.max(dim=1)
    error = 0.0
    for low in range(15):
        chosen = (score >= low / 15) & (score < (low + 1) / 15)
        if chosen.any():
            right = (answer[chosen] == labels[chosen]).double().mean()
            error += float(chosen.double().mean() * (score[chosen].mean() - right).abs())
    assert counted(logits, labels).compute()["a"].ece_before == pytest.approx(error)


def test_batches_and_workers_do_not_matter() -> None:
    logits, labels = answers(2000, 2.0)
    whole = counted(logits, labels, 2000).compute()
    assert counted(logits, labels, 17).compute()["a"].temperature == whole["a"].temperature
    parts = [counted(logits[k::3], labels[k::3]) for k in range(3)]
    tensors = [[*p._losses.values(), *p._bins.values()] for p in parts]
    sums = iter([sum(same) for same in zip(*tensors, strict=True)])
    parts[0].all_reduce(lambda _: next(sums))
    assert parts[0].compute()["a"].temperature == whole["a"].temperature


def test_images_without_label_and_logits_that_are_no_numbers_count_nothing() -> None:
    logits, labels = answers(2000, 2.0)
    expected = counted(logits[1000:], labels[1000:]).compute()
    labels[:500] = IGNORE_INDEX
    logits[500:1000, 1] = float("nan")
    assert counted(logits, labels).compute() == expected


def test_few_images_say_nothing() -> None:
    found = counted(*answers(MIN_IMAGES - 1, 3.0)).compute()["a"]
    assert found.temperature == 1.0
    assert found.ece_before == found.ece_after
