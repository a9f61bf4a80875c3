"""The report of a training: curves, the metrics of the model that is kept, the configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctc_ray.config.base import to_yaml
from ctc_ray.reports.charts import Line, LineChart, for_page, sheet_png
from ctc_ray.reports.page import Chart, Facts, Section, Table, Text, page

_METRICS = {  # name in the history and in metrics.json -> shown
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
}
_MORE_METRICS = {"top5": "among the five best", "loss": "loss"}
_IMAGES, _EVENTS, _TRAINING = "validation, images", "validation, events", "training, images"


@dataclass(frozen=True)
class Training:
    """What a training has left."""

    history: Sequence[Mapping[str, float]]
    """The metrics of each epoch: rows of history.csv."""
    metrics: Mapping[str, Any]
    """Content of metrics.json."""
    config: Mapping[str, Any]
    """The configuration of the run."""

    @property
    def heads(self) -> Mapping[str, Mapping[str, Any]]:
        """Head -> its metrics."""
        heads: Mapping[str, Mapping[str, Any]] = self.metrics["heads"]
        return heads


def training_page(training: Training) -> bytes:
    """The report as one HTML file; the same training gives the same bytes."""
    heads = [
        Section(
            head,
            [
                *_drawn([_metrics(training, head)]),
                _metrics_table(found),
                _classes_table(found),
            ],
        )
        for head, found in training.heads.items()
    ]
    return page(
        f"Training of {', '.join(training.heads)}",
        [
            Section("Model", [Facts(_facts(training))]),
            Section(
                "Loss and learning rate", _drawn([*_losses(training), _learning_rate(training)])
            ),
            *heads,
            Section("Configuration", [Text(to_yaml(training.config))], is_folded=True),
        ],
    )


def training_png(training: Training) -> bytes:
    """The curves of the report as a PNG."""
    metrics = [_metrics(training, head) for head in training.heads]
    charts = [*_losses(training), *metrics, _learning_rate(training)]
    return sheet_png([chart for chart in charts if chart.lines], columns=2)


def _drawn(charts: Sequence[LineChart]) -> list[Chart]:
    return [Chart(chart.title, for_page(chart)) for chart in charts if chart.lines]


def _facts(training: Training) -> list[tuple[str, str | int | float | None]]:
    config, monitor = training.config, training.metrics["monitor"]
    kept = training.metrics["epoch"]
    value = training.history[kept - 1].get(monitor)
    return [
        ("network", config["model"]["backbone"]),
        ("dataset", config["dataset_uri"]),
        ("epochs", len(training.history)),
        ("epoch kept", kept),
        (f"its {monitor}", value),
    ]


def _losses(training: Training) -> list[LineChart]:
    """The loss, and that of each head if there are several."""
    heads = training.heads if len(training.heads) > 1 else ()
    of_heads = {f"loss of {head}": f"loss_{head}" for head in heads}
    return [
        _chart(
            training,
            title,
            {("training", ""): f"train_{column}", ("validation", ""): f"val_{column}"},
        )
        for title, column in {"loss": "loss", **of_heads}.items()
    ]


def _metrics(training: Training, head: str) -> LineChart:
    """The metrics of a head, by image and by capture event."""
    columns = {
        (shown, dash): f"{prefix}_{name}_{head}"
        for dash, prefix in ((_IMAGES, "val"), (_EVENTS, "val_event"))
        for name, shown in _METRICS.items()
    }
    columns["accuracy", _TRAINING] = f"train_accuracy_{head}"
    return _chart(training, f"metrics of {head}", columns, y_range=(0, 1))


def _learning_rate(training: Training) -> LineChart:
    columns = {("learning rate", ""): "learning_rate"}
    return _chart(training, "learning rate at the start of an epoch", columns)


def _chart(
    training: Training,
    title: str,
    columns: Mapping[tuple[str, str], str],
    *,
    y_range: tuple[float, float] | None = None,
) -> LineChart:
    """A line for each column of the history that has a value.

    Args:
        columns: name and dash of the line -> the column.
    """
    lines = []
    for (name, dash), column in columns.items():
        points = [(row["epoch"], row[column]) for row in training.history if column in row]
        if points:
            lines.append(Line(name, points, dash))
    marked = (training.metrics["epoch"], "kept")
    return LineChart(title, lines, "epoch", y_range=y_range, marked=marked)


def _metrics_table(found: Mapping[str, Any]) -> Table:
    """Metrics of a head by image and by capture event, of the model that was kept."""
    numbers = ["number", *(found.get(n) and int(found[n]) for n in ("n", "event_n"))]
    rows = [
        [shown, found.get(name), found.get(f"event_{name}")]
        for name, shown in (_METRICS | _MORE_METRICS).items()
    ]
    return Table("on the validation split", ["", "images", "events"], [numbers, *rows])


def _classes_table(found: Mapping[str, Any]) -> Table:
    """Metrics of each class of a head, the most frequent one first."""
    classes = sorted(found["classes"], key=lambda row: (-row["images"], row["class"]))
    rows = [
        [row["class"], int(row["images"]), row["precision"]]
        + ([row["recall"], row["f1"]] if row["images"] else [None, None])
        for row in classes
    ]
    return Table("classes", ["class", "images", "precision", "recall", "F1"], rows)
