import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import IGNORE_INDEX
from ctc_ray.training.event_metrics import EventCounts

LABELS = LabelSpace({"species": ("cat", "dog", "hare"), "sex": ("f", "m")})
SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=25)


def split(
    sizes: Sequence[int], seed: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Random logits and labels of events with these numbers of images; a third has no label."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    logits, labels = {}, {}
    for head in LABELS.heads:
        k = LABELS.n_classes(head)
        logits[head] = torch.tensor(rng.normal(0, 3, (n, k)), dtype=torch.float32)
        codes = np.where(rng.random(n) < 1 / 3, IGNORE_INDEX, rng.integers(0, k, n))
        labels[head] = torch.tensor(codes)
    return logits, labels


def counted(
    sizes: Sequence[int], seed: int, batch_size: int, *, first: int = 0, last: int | None = None
) -> EventCounts:
    """Counts of the events [first, last), in batches of this size."""
    logits, labels = split(sizes, seed)
    names = [f"e{event}" for event, n in enumerate(sizes) for _ in range(n)]
    start, stop = sum(sizes[:first]), sum(sizes[:last])
    counts = EventCounts(LABELS, temperatures={"species": 2.5})
    for at in range(start, stop, batch_size):
        part = slice(at, min(at + batch_size, stop))
        counts.update(
            {h: v[part] for h, v in logits.items()},
            {h: v[part] for h, v in labels.items()},
            names[part],
        )
    counts.close()
    return counts


def expected(sizes: Sequence[int], seed: int) -> dict[str, float]:
    """Metrics of capture events, computed event by event in plain numpy."""
    logits, labels = split(sizes, seed)
    found = {}
    for head, temperature in (("species", 2.5), ("sex", 1.0)):
        k, pairs, start = LABELS.n_classes(head), [], 0
        for n in sizes:
            scaled = logits[head][start : start + n].double().numpy() / temperature
            odds = np.exp(scaled)
            mean = (odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)
            given_labels = [c for c in labels[head][start : start + n].tolist() if c >= 0]
            if given_labels:
                votes = [given_labels.count(c) for c in range(k)]
                pairs.append((votes.index(max(votes)), int(np.argmax(mean))))
            start += n
        if not pairs:
            continue
        recalls, f1s = [], []
        for c in sorted({label for label, _ in pairs}):
            hits = sum(pair == (c, c) for pair in pairs)
            n_label, n_said = (sum(pair[i] == c for pair in pairs) for i in (0, 1))
            recalls.append(hits / n_label)
            f1s.append(2 * hits / (n_label + n_said))
        found |= {
            f"event_accuracy_{head}": np.mean([a == b for a, b in pairs]),
            f"event_balanced_accuracy_{head}": np.mean(recalls),
            f"event_macro_f1_{head}": np.mean(f1s),
            f"event_n_{head}": len(pairs),
        }
    return found


@given(SIZES, st.integers(0, 99), st.integers(1, 40))
def test_metrics_are_those_of_numpy_whatever_the_batches(
    sizes: list[int], seed: int, batch_size: int
) -> None:
    assert counted(sizes, seed, batch_size).compute() == pytest.approx(expected(sizes, seed))


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_workers_together_count_what_one_counts(n_workers: int) -> None:
    sizes = [1, 12, 3, 7, 1, 1, 30, 2, 5, 4, 6]
    cuts = [len(sizes) * rank // n_workers for rank in range(n_workers + 1)]
    parts = [counted(sizes, 7, 4, first=a, last=b) for a, b in itertools.pairwise(cuts)]
    sent: list[list[torch.Tensor]] = []
    for part in parts[1:]:
        sent.append([])
        part.all_reduce(lambda tensor: (sent[-1].append(tensor.clone()), tensor)[1])
    turn = iter(range(99))

    def sum_tensor(tensor: torch.Tensor) -> torch.Tensor:
        index = next(turn)
        return tensor + sum(others[index] for others in sent)

    parts[0].all_reduce(sum_tensor)
    assert parts[0].compute() == pytest.approx(expected(sizes, 7))


def test_a_logit_that_is_no_number_makes_the_metrics_of_its_head_so() -> None:
    counts = EventCounts(LABELS)
    logits = {"species": torch.tensor([[1.0, float("nan"), 0.0]]), "sex": torch.tensor([[1.0, 0]])}
    counts.update(logits, {h: torch.zeros(1, dtype=torch.int64) for h in logits}, ["e"])
    counts.close()
    found = counts.compute()
    assert np.isnan(found["event_accuracy_species"])
    assert (found["event_accuracy_sex"], found["event_n_species"]) == (1.0, 1.0)


def test_no_batches_give_no_metrics() -> None:
    counts = EventCounts(LABELS)
    counts.close()
    assert counts.compute() == {}
