import math

import pytest
import torch

from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import IGNORE_INDEX
from ctc_ray.training.metrics import MetricCounts

LABELS = LabelSpace({"a": ("x", "y", "z"), "b": tuple("123456789")})


def batch(n: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    logits = {
        "a": torch.randn(n, 3, generator=generator),
        "b": torch.randn(n, 9, generator=generator),
    }
    labels = {
        "a": torch.randint(0, 3, (n,), generator=generator),
        "b": torch.randint(0, 9, (n,), generator=generator),
    }
    labels["b"][::3] = IGNORE_INDEX
    return logits, labels


def counted(n: int, pieces: int) -> MetricCounts:
    logits, labels = batch(n)
    counts = MetricCounts(LABELS)
    for rows in torch.arange(n).chunk(pieces):
        counts.update(
            {head: part[rows] for head, part in logits.items()},
            {head: part[rows] for head, part in labels.items()},
        )
    return counts


def test_metrics_by_hand() -> None:
    # label -> answer: x -> x, x -> y, y -> y, (missing) -> z; z has no image
    logits = torch.eye(3)[torch.tensor([0, 1, 1, 2])] * math.log(2)  # probs 1/2, 1/4, 1/4
    labels = torch.tensor([0, 0, 1, IGNORE_INDEX])
    counts = MetricCounts(LabelSpace({"a": ("x", "y", "z")}), weights={"a": 3.0})
    counts.update({"a": logits}, {"a": labels})
    loss = (math.log(2) + math.log(4) + math.log(2)) / 3
    assert counts.compute() == pytest.approx(
        {
            "loss": 3 * loss,
            "loss_a": loss,
            "accuracy_a": 2 / 3,
            "balanced_accuracy_a": (1 / 2 + 1) / 2,
            "macro_f1_a": (2 / 3 + 2 / 3) / 2,  # x: 2*1/(2+1), y: 2*1/(1+2); z has no support
            "top5_a": 1.0,
            "n_a": 3.0,
        },
        rel=1e-6,
    )


def test_top5_counts_labels_among_the_five_best_answers() -> None:
    logits = torch.arange(9.0).repeat(9, 1)
    counts = MetricCounts(LabelSpace({"b": tuple("123456789")}))
    counts.update({"b": logits}, {"b": torch.arange(9)})
    assert counts.compute()["top5_b"] == 5 / 9


@pytest.mark.parametrize("pieces", [2, 5, 31])
def test_batch_size_does_not_matter(pieces: int) -> None:
    assert counted(31, pieces).compute() == pytest.approx(counted(31, 1).compute(), rel=1e-6)


def test_confusions_hold_labels_in_rows_and_answers_in_columns() -> None:
    logits, labels = batch(31)
    confusion = counted(31, 4).confusions["a"]
    for label, given in zip(labels["a"], logits["a"].argmax(dim=1), strict=True):
        confusion[label, given] -= 1
    assert not confusion.any()


def test_three_workers_together_count_what_one_counts() -> None:
    logits, labels = batch(30)
    workers = [MetricCounts(LABELS) for _ in range(3)]
    for rank, worker in enumerate(workers):
        worker.update(
            {head: part[rank::3] for head, part in logits.items()},
            {head: part[rank::3] for head, part in labels.items()},
        )
    sent: list[torch.Tensor] = []

    def remember(packed: torch.Tensor) -> torch.Tensor:
        sent.append(packed.clone())
        return packed

    for worker in workers:
        worker.all_reduce(remember)
    workers[1].all_reduce(lambda packed: sum(sent, torch.zeros_like(packed)))
    assert workers[1].compute() == pytest.approx(counted(30, 1).compute(), rel=1e-6)
    assert torch.equal(workers[1].confusions["b"], counted(30, 1).confusions["b"])


def test_merging_adds_up() -> None:
    one, two = counted(31, 1), counted(31, 2)
    one.merge(two)
    assert one.compute()["n_a"] == 62
    assert one.compute()["accuracy_b"] == two.compute()["accuracy_b"]


def test_head_without_any_label_has_no_metrics_and_no_part_in_the_loss() -> None:
    logits, labels = batch(4)
    counts = MetricCounts(LABELS)
    counts.update(logits, {**labels, "b": torch.full((4,), IGNORE_INDEX)})
    metrics = counts.compute()
    assert not [name for name in metrics if name.endswith("_b")]
    assert metrics["loss"] == metrics["loss_a"]
    assert MetricCounts(LABELS).compute() == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_gives_no_metric(value: float) -> None:
    logits, labels = batch(12)
    sound = MetricCounts(LABELS)
    sound.update(logits, labels)
    logits["a"][3, 0] = value
    counts = MetricCounts(LABELS)
    counts.update(logits, labels)
    found, expected = counts.compute(), sound.compute()
    for name in ("loss_a", "accuracy_a", "macro_f1_a", "top5_a", "loss"):
        assert math.isnan(found[name]), name
    for name in ("loss_b", "accuracy_b", "macro_f1_b", "top5_b", "n_a", "n_b"):
        assert found[name] == expected[name], name


def test_a_row_without_label_may_answer_anything() -> None:
    logits, labels = batch(12)
    logits["b"][0] = math.nan  # its label is missing
    counts = MetricCounts(LABELS)
    counts.update(logits, labels)
    assert all(map(math.isfinite, counts.compute().values()))
