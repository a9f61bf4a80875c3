"""A search that has ended, as its report takes it."""

import random
from typing import Any

from ctc_ray.reports.search import Details, SearchReport
from ctc_ray.reports.search_charts import SearchedField, ShownTrial

HEADS = ("val_macro_f1_species", "val_macro_f1_behaviour", "val_macro_f1_count")


def search_of(
    n_trials: int = 12,
    *,
    options: tuple[str, ...] = ("small_cnn", "resnet18", "convnext_tiny"),
    n_epochs: int = 10,
    yaml: str = "dataset_uri: d\n",
    importance: dict[str, float] | None = None,
    heads: tuple[str, ...] = (),
) -> SearchReport:
    fields = [
        SearchedField("model.backbone", options),
        SearchedField("optimizer.learning_rate", is_log=True, low=1e-5, high=0.1),
        SearchedField("optimizer.momentum", low=0.5, high=0.99),
        SearchedField("augment.rotate", low=0.0, high=20.0),
        SearchedField("batch_size", ("32", "64", "128", "256")),
    ]
    rng = random.Random(0)
    pairs = [_trial(k, options, n_epochs, yaml, rng, heads) for k in range(n_trials)]
    return SearchReport(
        objective="val_macro_f1" if heads else "val_loss",
        direction="max" if heads else "min",
        n_planned=n_trials,
        fields=fields,
        trials=pairs,
        importance={} if importance is None else importance,
        about_importance="By PED-ANOVA.",
    )


def _trial(
    number: int,
    options: tuple[str, ...],
    n_epochs: int,
    yaml: str,
    rng: random.Random,
    heads: tuple[str, ...],
) -> tuple[ShownTrial, Details]:
    rate = 10 ** rng.uniform(-5, -1)
    sample: dict[str, Any] = {
        "model.backbone": options[number % len(options)],
        "optimizer.learning_rate": rate,
        "augment.rotate": rng.uniform(0, 20),
        "batch_size": rng.choice(("32", "64", "128", "256")),
    }
    if number % 3:
        sample["optimizer.momentum"] = rng.uniform(0.5, 0.99)
    state: Any = "error" if number % 25 == 24 else "stopped" if number % 2 else "done"
    n_done = n_epochs if state == "done" else max(1, n_epochs // 4)
    end = 0.3 + abs(rate - 0.003) * 10 + rng.uniform(0, 0.3)
    if number == 2:
        end = 1e6  # diverged, but a number
    curve = [(k, end + 2 / k + rng.uniform(0, 0.05)) for k in range(1, n_done + 1)]
    if heads:
        curve = [(x, 1 / (1 + y)) for x, y in curve]
    by_head = {name: curve[-1][1] * rng.uniform(0.8, 1) for name in heads}
    shown = ShownTrial(
        f"{number:05d}",
        state,
        None if state == "error" else curve[-1][1],
        sample,
        [] if state == "error" else curve,
        by_head if state == "done" else {},
        is_on_front=state == "done" and number % 8 == 0,
    )
    reason = {"done": "", "stopped": "other trials were better after as many epochs"}
    failed = "CUDA out of memory. Tried to allocate 2.00 GiB; </td><script>alert(1)</script>"
    return shown, Details(n_done, 12.5 * n_done, reason.get(state, failed), yaml)
