"""What a model answers on a split, over all workers: per image and per capture event."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.training.batches import Batch
from ctc_ray.training.calibration import CalibrationCounts
from ctc_ray.training.event_metrics import EventCounts
from ctc_ray.training.final_metrics import FinalMetrics, SplitMetrics
from ctc_ray.training.loop import EpochSettings, evaluate
from ctc_ray.training.metrics import SumOverWorkers


@dataclass(frozen=True)
class Measuring:
    """Measures a model that all workers hold; each must call the methods in the same order."""

    settings: EpochSettings
    batches: Callable[[str], Iterable[Batch]]
    """val or test -> the batches of this worker's share."""
    sum_tensor: SumOverWorkers

    def on(
        self,
        model: MultiHeadModel,
        part: str,
        *,
        temperatures: Mapping[str, float] | None = None,
        calibration: CalibrationCounts | None = None,
    ) -> SplitMetrics:
        """Metrics on val or test, equal on every worker.

        Args:
            temperatures: head -> what its logits are divided by; 1 if absent.
            calibration: counts the answers of this worker, too.
        """
        labels, device = self.settings.label_space, self.settings.device
        events = EventCounts(labels, temperatures=temperatures, device=device)
        counts = evaluate(
            model, self.batches(part), self.settings, calibration=calibration, events=events
        )
        counts.all_reduce(self.sum_tensor)
        events.all_reduce(self.sum_tensor)
        return SplitMetrics(
            counts.compute() | events.compute(),
            {head: counts.per_class(head) for head in labels.heads},
        )

    def kept(self, model: MultiHeadModel, *, epoch: int, on_test: bool) -> FinalMetrics:
        """Metrics of the model that is kept, with the temperatures that fit the validation split.

        Args:
            epoch: whose weights it has, from 1.
            on_test: measure it on the test split, too.
        """
        counts = CalibrationCounts(self.settings.label_space, device=self.settings.device)
        val = self.on(model, "val", calibration=counts)
        counts.all_reduce(self.sum_tensor)
        calibrations = counts.compute()
        temperatures = {head: found.temperature for head, found in calibrations.items()}
        if any(value != 1 for value in temperatures.values()):  # they change means of probabilities
            val = self.on(model, "val", temperatures=temperatures)
        if not on_test:
            return FinalMetrics(epoch, val, calibrations)
        on_new = CalibrationCounts(self.settings.label_space, device=self.settings.device)
        test = self.on(model, "test", temperatures=temperatures, calibration=on_new)
        on_new.all_reduce(self.sum_tensor)
        return FinalMetrics(epoch, val, calibrations, test, on_new.given(temperatures))
