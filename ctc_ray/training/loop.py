"""One epoch of training or evaluation on any iterable of batches.

B batch, C channels, H height, W width.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from ctc_ray.columns.seeds import stable_hash
from ctc_ray.config.choices import Mixing, Precision
from ctc_ray.errors import DivergedError
from ctc_ray.labels import LabelSpace
from ctc_ray.runs.records import PixelRecord
from ctc_ray.training.batches import Batch
from ctc_ray.training.calibration import CalibrationCounts
from ctc_ray.training.device_batches import arrived
from ctc_ray.training.event_metrics import EventCounts
from ctc_ray.training.losses import LossSettings, Target, label_weights, multi_head_loss
from ctc_ray.training.metrics import MetricCounts
from ctc_ray.training.mixing import mix
from ctc_ray.training.optimizer import set_learning_rate

Augment = Callable[[Tensor, Sequence[int]], Tensor]

_IMAGES_FOR_STATISTICS = 4096  # as in the original
_STEPS_BETWEEN_CHECKS = 32


@dataclass(frozen=True)
class EpochSettings:
    """Settings that all epochs share."""

    label_space: LabelSpace
    loss: LossSettings = field(default_factory=LossSettings)
    device: torch.device | str = "cpu"
    seed: int = 0
    rank: int = 0
    accumulate: int = 1
    """Batches per update of the weights."""
    clip_norm: float | None = None
    """Longest gradient, over all weights; None: no limit."""
    augment: Augment | None = None
    """Changes training images: takes uint8 images on the device and a seed per image; returns
    images with values from 0 to 255."""
    precision: Precision = "float32"
    """Numbers that the network computes with in training."""
    scaler: torch.amp.GradScaler = field(
        default_factory=lambda: torch.amp.GradScaler(enabled=False)
    )
    """Keeps gradients in the range of float16; does nothing for the other numbers."""
    mix: Mixing = "none"
    mix_alpha: float = 0.2
    """See `training.mixing.mix`."""

    def computing(self) -> contextlib.AbstractContextManager[object]:
        """In which the network computes in training."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=getattr(torch, self.precision))


@dataclass(frozen=True)
class Updates:
    """The updates of the weights that an epoch still has to do."""

    learning_rate: Callable[[int], float] | None = None
    """Number of an update in the epoch, from 0 -> its learning rate; None: the optimiser's own."""
    first: int = 0
    """Number of the first one in the epoch."""
    counts: MetricCounts | None = None
    """Metric counts of the updates before the first one; those of the rest are added to them."""
    after: Callable[[int, MetricCounts], None] = lambda *_: None
    """Called after each, with the number of updates done in the epoch, and their counts."""


def train_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: optim.Optimizer,
    settings: EpochSettings,
    *,
    epoch: int,
    updates: Updates = Updates(),  # it cannot be changed
) -> MetricCounts:
    """Train on every batch once, and count the predictions made meanwhile.

    Random numbers of the model (dropout) depend on seed, rank, epoch and update alone, so a resumed
    run repeats an update exactly. The function seeds torch's global generator for this.

    Args:
        model: takes uint8 images (B, C, H, W), returns logits per head; may be wrapped for
            distributed training.
        epoch: number of the epoch, from 0.

    Raises:
        DivergedError: the loss of a step is not a finite number; the weights are of no use.
    """
    counts = updates.counts or new_counts(settings)
    model.train()
    check = _FiniteLoss(epoch, optimizer)
    scaler = settings.scaler
    for step, parts in enumerate(_in_steps(batches, settings.accumulate), updates.first):
        torch.manual_seed(stable_hash(f"rank {settings.rank}/{step}", settings.seed, epoch))
        if updates.learning_rate is not None:
            set_learning_rate(optimizer, updates.learning_rate(step))
        optimizer.zero_grad(set_to_none=True)
        prepared = [_prepared(batch, settings) for batch in parts]
        weights = label_weights(
            [target for _, targets in prepared for target in targets], settings.loss
        )
        total = torch.zeros((), device=settings.device)
        for number, (images_BCHW, targets) in enumerate(prepared):
            with _gradients_of_step(model, is_last=number == len(parts) - 1):
                with settings.computing():
                    logits = model(images_BCHW)
                logits = {head: part.float() for head, part in logits.items()}
                loss = multi_head_loss(logits, targets, settings.loss, weights)
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch has no types
            total += loss.detach()
            counts.update({head: part.detach() for head, part in logits.items()}, targets[0].labels)
        check.add(step + 1, total)
        if settings.clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        updates.after(step + 1, counts)
    check.end()
    return counts


def _prepared(batch: Batch, settings: EpochSettings) -> tuple[Tensor, list[Target]]:
    """The images as the model sees them in training, and what it should answer."""
    images_BCHW, labels = arrived(batch, settings.device)
    if settings.augment is not None:
        images_BCHW = settings.augment(images_BCHW, batch.seeds)
    kind, alpha = settings.mix, settings.mix_alpha
    return mix(images_BCHW, labels, batch.seeds, kind=kind, alpha=alpha)


def _in_steps(batches: Iterable[Batch], n: int) -> Iterator[list[Batch]]:
    """The batches of each update of the weights; the last one may have fewer."""
    rest = iter(batches)
    while parts := list(itertools.islice(rest, n)):
        yield parts


def _gradients_of_step(
    model: nn.Module, *, is_last: bool
) -> contextlib.AbstractContextManager[object]:
    """Workers add their gradients up once per update, after its last batch."""
    if isinstance(model, DistributedDataParallel) and not is_last:
        return model.no_sync()
    return contextlib.nullcontext()


class _FiniteLoss:
    """Finds the first step whose loss is not finite; a GPU is waited for only now and then."""

    def __init__(self, epoch: int, optimizer: optim.Optimizer) -> None:
        self._epoch, self._optimizer = epoch, optimizer
        self._waiting: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Tensor) -> None:
        """Note the loss of a step, before it changes the weights."""
        self._waiting.append((step, torch.isfinite(loss.detach())))
        if loss.device.type == "cpu" or len(self._waiting) >= _STEPS_BETWEEN_CHECKS:
            self.end()

    def end(self) -> None:
        """Check the steps that have been noted since the last time."""
        steps, self._waiting = self._waiting, []
        if steps and not bool(torch.stack([is_finite for _, is_finite in steps]).all()):
            step = next(step for step, is_finite in steps if not bool(is_finite))
            rate = max(group["lr"] for group in self._optimizer.param_groups)
            raise DivergedError(
                f"training diverged: the loss is not a number in epoch {self._epoch + 1}, step "
                f"{step}, at a learning rate of {rate:g}; try a smaller --optimizer.learning-rate, "
                "with --overwrite"
            )


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    settings: EpochSettings,
    *,
    calibration: CalibrationCounts | None = None,
    events: EventCounts | None = None,
) -> MetricCounts:
    """Count the predictions of the model, in evaluation mode.

    Args:
        model: not wrapped for distributed training, because workers may have different numbers of
            batches.
        calibration: counts them, too.
        events: counts them by capture event.
    """
    counts = new_counts(settings)
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            images_BCHW, labels = arrived(batch, settings.device)
            logits = model(images_BCHW)
            counts.update(logits, labels)
            if calibration is not None:
                calibration.update(logits, labels)
            if events is not None:
                events.update(logits, labels, batch.capture_event_ids)
    if events is not None:
        events.close()
    return counts


def channel_mean_std(batches: Iterable[Batch]) -> PixelRecord:
    """Mean and standard deviation per channel of up to 4096 images.

    Sums are exact integers, so the order of the images does not matter.
    """
    n_pixels = n_images = 0
    totals_C = torch.zeros(3, dtype=torch.float64)  # integers below 2**53: exact
    squares_C = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        images_BCHW = batch.images_BCHW[: _IMAGES_FOR_STATISTICS - n_images].to(torch.int64)
        totals_C += images_BCHW.sum(dim=(0, 2, 3))
        squares_C += images_BCHW.square().sum(dim=(0, 2, 3))
        n_images += len(images_BCHW)
        n_pixels += images_BCHW[:, 0].numel()
        if n_images >= _IMAGES_FOR_STATISTICS:
            break
    means_C, squares_C = totals_C / max(1, n_pixels), squares_C / max(1, n_pixels)
    return PixelRecord.of_moments(n_images, means_C.tolist(), squares_C.tolist())


def new_counts(settings: EpochSettings) -> MetricCounts:
    """Counts that start at zero."""
    weights = settings.loss.head_weights
    return MetricCounts(settings.label_space, weights=weights, device=settings.device)
