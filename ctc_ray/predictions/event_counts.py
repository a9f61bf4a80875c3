"""Count the predictions per capture event in their files."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow.compute as pc

from ctc_ray.columns.threads import map_ahead
from ctc_ray.files import parquet
from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import pred_column

_AT_ONCE = 8  # files; most of the time a store is waited for


@dataclass
class EventCounts:
    """What files of events hold together."""

    n_events: int = 0
    n_images: int = 0
    n_failed: int = 0
    predicted: dict[str, Counter[str | None]] = field(default_factory=dict)
    """Head -> class -> events that are predicted as it; None: events without a prediction."""

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """A table per head for people: the classes, the most frequent one first."""
        return {
            f"events predicted as {head}": [
                {"class": name or "(no usable image)", "events": n}
                for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))
            ]
            for head, counts in self.predicted.items()
        }


def count_events(uris: Iterable[str], label_space: LabelSpace) -> EventCounts:
    """The counts of all these files of EVENT_PREDICTION."""
    found = EventCounts(predicted={head: Counter() for head in label_space.heads})
    preds = [pred_column(head) for head in label_space.heads]
    read = partial(parquet.read_table, columns=["n_images", "n_failed", *preds])
    for events in map_ahead(read, uris, n_threads=_AT_ONCE):
        found.n_events += events.num_rows
        found.n_images += pc.sum(events["n_images"]).as_py() or 0
        found.n_failed += pc.sum(events["n_failed"]).as_py() or 0
        for head in label_space.heads:
            for row in pc.value_counts(events[pred_column(head)]).to_pylist():
                found.predicted[head][row["values"]] += row["counts"]
    return found
