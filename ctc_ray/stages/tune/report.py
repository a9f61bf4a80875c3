"""The report of a search, written again as the search grows."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from ctc_ray.config.base import to_yaml
from ctc_ray.config.search import Dimension
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.files import storage
from ctc_ray.reports.attempt import attempt
from ctc_ray.stages.tune.objective import Objective
from ctc_ray.stages.tune.records import EndedTrial, config_of, name_of
from ctc_ray.stages.tune.table import metrics_of, words_of

PAGE_FILE = "trials.html"
_PAUSE_S, _MOST_OF_TIME = 30.0, 0.05  # between two writings, and the share of time that they take


@dataclass
class SearchPage:
    """Writes the report; that it cannot be written ends nothing."""

    config: TuneConfig
    dimensions: Mapping[str, Dimension]
    objective: Objective
    n_planned: int
    _next: float = field(default_factory=lambda: time.monotonic() + _PAUSE_S)
    _yaml: dict[int, str] = field(default_factory=dict)

    def write_if_due(self, ended: Mapping[int, EndedTrial]) -> None:
        """Write it if the last time was long ago."""
        if time.monotonic() >= self._next:
            self.write(ended)

    def write(self, ended: Mapping[int, EndedTrial]) -> None:
        """Write it now."""
        began = time.monotonic()
        uri = storage.join(self.config.output_uri, PAGE_FILE)
        with attempt(uri):
            storage.write_bytes(uri, self._drawn([ended[number] for number in sorted(ended)]))
        now = time.monotonic()
        self._next = now + max(_PAUSE_S, (now - began) / _MOST_OF_TIME)

    def _drawn(self, ended: Sequence[EndedTrial]) -> bytes:
        from ctc_ray.reports.search import (  # charts take seconds to import and to draw
            Details,
            SearchReport,
            search_page,
        )
        from ctc_ray.reports.search_charts import ShownTrial
        from ctc_ray.stages.tune.importance import importance_of

        fields = self._fields()
        named = {one.name: bool(one.options) for one in fields}
        metrics = {one.number: metrics_of(self.config.output_uri, one) for one in ended}
        front = self._front(metrics)
        shown = [
            ShownTrial(
                name_of(one.number),
                one.state,
                self._value(one, metrics[one.number]),
                {
                    name: words_of(one.sample[name]) if is_word else float(one.sample[name])
                    for name, is_word in named.items()
                    if name in one.sample
                },
                [(row["epoch"], self.objective.value(row)) for row in one.history],
                self._by_head(metrics[one.number]),
                one.number in front,
            )
            for one in ended
        ]
        importance, about = importance_of(
            fields, shown, self.objective.direction, is_inherited=self.config.method == "pbt"
        )
        details = [
            Details(len(one.history), one.seconds, one.reason, self._yaml_of(one)) for one in ended
        ]
        return search_page(
            SearchReport(
                self.objective.name,
                self.objective.direction,
                self.n_planned,
                fields,
                list(zip(shown, details, strict=True)),
                importance,
                about,
            )
        )

    def _fields(self) -> list[Any]:
        """The settings that are searched for themselves."""
        from ctc_ray.reports.search_charts import SearchedField

        found = []
        for name, dimension in self.dimensions.items():
            match dimension.kind:
                case "choice" | "grid":
                    options = dict.fromkeys(map(words_of, dimension.values))
                    found.append(SearchedField(name, tuple(options)))
                case "uniform" | "loguniform" | "randint":
                    low, high = dimension.extremes()
                    is_log = dimension.kind == "loguniform"
                    found.append(SearchedField(name, (), is_log, float(low), float(high)))
                case "same_as":
                    continue
                case _:
                    assert_never(dimension.kind)
        return found

    def _value(self, one: EndedTrial, metrics: Mapping[str, float]) -> float | None:
        """What its charts show; None if that is not a number."""
        value = self.objective.value(one.found(metrics))
        return value if math.isfinite(value) else None

    def _by_head(self, metrics: Mapping[str, float]) -> dict[str, float]:
        if not (metrics and self.objective.is_pareto):
            return {}
        return dict(zip(self.objective.weights, self.objective.values(metrics), strict=True))

    def _front(self, metrics: Mapping[int, Mapping[str, float]]) -> set[int]:
        """Numbers of the trials on the Pareto front."""
        if not self.objective.is_pareto:
            return set()
        done = [number for number, found in metrics.items() if found]
        front = self.objective.front([self.objective.values(metrics[number]) for number in done])
        return {number for number, is_best in zip(done, front, strict=True) if is_best}

    def _yaml_of(self, one: EndedTrial) -> str:
        """The configuration for `ctc train --config`; the model is written beside `models`."""
        if one.number not in self._yaml:
            output_uri = storage.join(self.config.output_uri, f"model-{name_of(one.number)}")
            config = config_of(self.config, one.sample, one.number, parent=one.parent)
            config = config.replaced(output_uri=output_uri)
            self._yaml[one.number] = to_yaml(config.model_dump(mode="json"))
        return self._yaml[one.number]
