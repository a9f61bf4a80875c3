"""What the predictions of `ctc predict` add up to: classes of events, and metrics beside labels.

Counted file by file, from the columns that are needed, so the memory does not grow with the rows.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from ctc_ray.columns.threads import map_ahead
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.label_counts import LabelCounts
from ctc_ray.schemas import label_column, pred_column
from ctc_ray.stages.predict.answer_files import EVENTS, IMAGES, list_parts

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"

_AT_ONCE = 8  # files; most of the time a store is waited for
_NAMED = 5  # unknown labels in a warning


def write_metrics(output_uri: str, labels: LabelSpace, labelled: Sequence[str]) -> dict[str, Any]:
    """Compare the predictions with the labels; without any label there are no metrics.

    Returns:
        Tables for people.
    """
    uri = storage.join(output_uri, METRICS_FILE)
    counts = {
        kind: _count_labels(output_uri, folder, labels, labelled)
        for kind, folder in (("image", IMAGES), ("event", EVENTS))
    }
    found = {
        kind: {head: one.metrics() for head, one in of_head.items()}
        for kind, of_head in counts.items()
    }
    if not any(found.values()):
        storage.delete_file(uri)  # of predictions that have grown
        return {}
    storage.write_json(uri, {f"{kind}s": heads for kind, heads in found.items()})
    _warn_of_unknown(found["event"] or found["image"])
    return _tables(found)


def _count_labels(
    output_uri: str, folder: str, labels: LabelSpace, labelled: Sequence[str]
) -> dict[str, LabelCounts]:
    counts = {head: LabelCounts(labels, head) for head in labelled}
    columns = [of(head) for head in labelled for of in (label_column, pred_column)]
    for rows in _read(output_uri, folder, columns) if labelled else ():
        for one in counts.values():
            one.add(rows)
    return {head: one for head, one in counts.items() if one.has_labels}


def _read(output_uri: str, folder: str, columns: list[str]) -> Iterator[pa.Table]:
    uris = (storage.join(output_uri, name) for name in list_parts(output_uri, folder))
    return map_ahead(lambda uri: parquet.read_table(uri, columns), uris, n_threads=_AT_ONCE)


def _warn_of_unknown(heads: dict[str, dict[str, Any]]) -> None:
    for head, metrics in heads.items():
        unknown = Counter(metrics["unknown_labels"]).most_common()
        if unknown:
            more = ", …" if len(unknown) > _NAMED else ""
            logger.warning(
                "%s: events with labels that are no class of the model (not in the metrics): %s%s",
                head,
                ", ".join(f"{name} {n}" for name, n in unknown[:_NAMED]),
                more,
            )


def _tables(found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """A row per head, and a table of the classes that occur; by image and by event."""
    shown = ("n", "accuracy", "balanced_accuracy", "macro_f1", "n_unknown_label", "n_failed")
    tables: dict[str, Any] = {
        "accuracy": [
            {"head": head, "per": kind, **{name: metrics[name] for name in shown}}
            for kind, heads in found.items()
            for head, metrics in heads.items()
        ]
    }
    for kind, heads in found.items():
        for head, metrics in heads.items():
            rows = [
                {name: row[name] for name in ("class", "precision", "recall", "f1", "support")}
                for row in metrics["classes"]
                if row["support"] or row["predicted"]
            ]
            if rows:
                tables[f"{head} per {kind}"] = rows
    return tables
