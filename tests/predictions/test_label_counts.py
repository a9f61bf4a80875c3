import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.label_counts import LabelCounts
from ctc_ray.training.metrics import MetricCounts

LABELS = LabelSpace({"species": ("cat", "dog", "fox")})
CLASSES = LABELS.classes["species"]

pairs = st.tuples(
    st.sampled_from([None, "cat", "dog", "fox", "wolf", "lynx"]),
    st.sampled_from([None, "cat", "dog", "fox"]),
)


def table(rows: list[tuple[str | None, str | None]]) -> pa.Table:
    labels, predicted = zip(*rows, strict=True) if rows else ((), ())
    return pa.table(
        {
            "label_species": pa.array(labels, pa.string()),
            "pred_species": pa.array(predicted, pa.string()),
        }
    )


def counted(*parts: list[tuple[str | None, str | None]]) -> LabelCounts:
    counts = LabelCounts(LABELS, "species")
    for part in parts:
        counts.add(table(part))
    return counts


def by_hand(rows: list[tuple[str | None, str | None]]) -> dict[str, tuple[float, float, float]]:
    """Class -> precision, recall and F1 from the definitions, pair by pair."""
    found = {}
    for name in CLASSES:
        hits = sum(label == predicted == name for label, predicted in rows)
        wrong = sum(predicted == name != label for label, predicted in rows)
        missed = sum(label == name != predicted for label, predicted in rows)
        precision = hits / (hits + wrong) if hits + wrong else 0.0
        recall = hits / (hits + missed) if hits + missed else 0.0
        both = precision + recall
        found[name] = (precision, recall, 2 * precision * recall / both if both else 0.0)
    return found


@settings(max_examples=200)
@given(st.lists(pairs, max_size=40))
def test_metrics_are_those_of_their_definitions(rows):
    metrics = counted(rows).metrics()
    usable = [(label, p) for label, p in rows if label in CLASSES and p is not None]
    expected = by_hand(usable)
    for row in metrics["classes"]:
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(expected[row["class"]])
        assert row["support"] == sum(label == row["class"] for label, _ in usable)
        assert row["predicted"] == sum(p == row["class"] for _, p in usable)
    labelled = [name for name in CLASSES if any(label == name for label, _ in usable)]
    if not usable:
        assert metrics["accuracy"] is metrics["macro_f1"] is metrics["balanced_accuracy"] is None
        return
    right = sum(label == p for label, p in usable)
    assert metrics["accuracy"] == pytest.approx(right / len(usable))
    assert metrics["macro_f1"] == pytest.approx(np.mean([expected[name][2] for name in labelled]))
    recalls = [expected[name][1] for name in labelled]
    assert metrics["balanced_accuracy"] == pytest.approx(np.mean(recalls))


@given(st.lists(pairs, max_size=40))
def test_every_row_is_counted_once(rows):
    metrics = counted(rows).metrics()
    names = ("n", "n_unlabelled", "n_unknown_label", "n_failed")
    assert sum(metrics[name] for name in names) == len(rows)
    assert metrics["n_unlabelled"] == sum(label is None for label, _ in rows)
    assert metrics["n_failed"] == sum(label is not None and p is None for label, p in rows)
    assert sum(metrics["unknown_labels"].values()) == metrics["n_unknown_label"]
    assert set(metrics["unknown_labels"]) <= {"wolf", "lynx"}
    has_labels = any(label is not None for label, _ in rows)
    assert counted(rows).has_labels == has_labels


@given(st.lists(st.lists(pairs, max_size=10), max_size=5))
def test_parts_add_up_to_the_whole(parts):
    whole = [row for part in parts for row in part]
    assert counted(*parts).metrics() == counted(whole).metrics()


@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1))
def test_metrics_have_the_meaning_that_they_have_in_training(rows):
    """What `ctc train` says of a split and what `ctc predict` says of it can be compared."""
    codes = {name: code for code, name in enumerate(CLASSES)}
    logits = torch.eye(3)[[codes[p] for _, p in rows]]
    training = MetricCounts(LABELS)
    labels = torch.tensor([codes[label] for label, _ in rows])
    training.update({"species": logits}, {"species": labels})
    ours, theirs = counted(rows).metrics(), training.compute()
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert math.isclose(ours[name], theirs[f"{name}_species"], abs_tol=1e-6)
    of_class = training.per_class("species")
    for name in ("precision", "recall", "f1"):
        assert [row[name] for row in ours["classes"]] == pytest.approx(of_class[name], abs=1e-6)


def test_a_column_of_other_text_does_not_fill_the_memory():
    counts = LabelCounts(LABELS, "species")
    for part in range(3):
        counts.add(table([(f"note {part} {n}", "cat") for n in range(1000)]))
    assert counts.n_unknown_label == 3000
    assert len(counts.unknown_labels) == 100
