"""Metrics of the model that a training keeps, and how they are written into files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ctc_ray.config.training import MONITORED
from ctc_ray.labels import LabelSpace
from ctc_ray.training.calibration import Calibration


@dataclass(frozen=True)
class SplitMetrics:
    """What a model answers on a split."""

    metrics: dict[str, float]
    """See `MetricCounts.compute` and `EventCounts.compute`."""
    classes: dict[str, dict[str, list[float]]]
    """Head -> see `MetricCounts.per_class`."""

    def for_file(
        self, label_space: LabelSpace, further: Mapping[str, Mapping[str, float]]
    ) -> dict[str, Any]:
        """Loss and heads as in metrics.json.

        Args:
            further: head -> further values of it.
        """
        heads = {}
        for head in label_space.heads:
            own = {
                name.removesuffix(f"_{head}"): value
                for name, value in self.metrics.items()
                if name in {f"{kind}_{head}" for kind in (*MONITORED, "n", "event_n")}
            }
            rows = zip(*self.classes[head].values(), strict=True)
            heads[head] = {
                **own,
                **further.get(head, {}),
                "classes": [
                    {"class": name, **dict(zip(self.classes[head], row, strict=True))}
                    for name, row in zip(label_space.classes[head], rows, strict=True)
                ],
            }
        return {"loss": self.metrics.get("loss"), "heads": heads}


@dataclass(frozen=True)
class FinalMetrics:
    """What the model that is kept answers on the splits that it has not learnt from."""

    epoch: int
    """Whose weights it has, from 1."""
    val: SplitMetrics
    calibrations: dict[str, Calibration]
    """Head -> its temperature, and the calibration errors without and with it, on `val`."""
    test: SplitMetrics | None = None
    """None: it is not measured."""
    test_calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    """Head -> the same temperature, and the calibration errors on `test`."""

    def with_calibration(self) -> dict[str, float]:
        """The metrics on `val`, and `ece_<head>` and `ece_uncalibrated_<head>`."""
        found = dict(self.val.metrics)
        for head, calibration in self.calibrations.items():
            found[f"ece_uncalibrated_{head}"] = calibration.ece_before
            found[f"ece_{head}"] = calibration.ece_after
        return found

    def for_file(
        self, label_space: LabelSpace, *, splits: Sequence[str] = ("val",), monitor: str
    ) -> dict[str, Any]:
        """The content of metrics.json.

        Args:
            splits: of the dataset, on which `val` was measured.
        """
        calibrations = _as_dicts(self.calibrations)
        content = {
            "split": ", ".join(splits),
            "epoch": self.epoch,
            "monitor": monitor,
            **self.val.for_file(label_space, calibrations),
        }
        if self.test is not None:
            content["test"] = self.test.for_file(label_space, _as_dicts(self.test_calibrations))
        return content


def _as_dicts(calibrations: Mapping[str, Calibration]) -> dict[str, dict[str, float]]:
    return {head: asdict(found) for head, found in calibrations.items()}
