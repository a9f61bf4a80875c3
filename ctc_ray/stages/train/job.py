"""One worker's training job: model, data and state, put together from the nouns.

The state after an epoch is all that the next one depends on, so a job that is loaded continues as
if it had never stopped.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ctc_ray.columns.seeds import stable_hash
from ctc_ray.config.training import AugmentConfig, TrainConfig
from ctc_ray.errors import DivergedError
from ctc_ray.files import storage
from ctc_ray.files.csv_text import csv_of_records
from ctc_ray.images.augment import augment_batch
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import weight_blocks
from ctc_ray.models.bundle import (
    HISTORY_FILE,
    METRICS_FILE,
    Bundle,
    Provenance,
    save_bundle,
)
from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.models.starting_weights import backbone_to_begin_with
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint
from ctc_ray.stages.train import telling
from ctc_ray.stages.train.first_model import (
    Normalisation,
    make_model,
    normalisation_of,
    with_heads_of,
)
from ctc_ray.stages.train.mapped_classes import renaming
from ctc_ray.stages.train.pixels import decode, is_cpu
from ctc_ray.stages.train.weights import (
    between,
    copy,
    gradient_scaler,
    moving_average,
    sum_over_workers,
)
from ctc_ray.training.batches import LoaderSettings, read_batches
from ctc_ray.training.calibration import CalibrationCounts
from ctc_ray.training.event_metrics import EventCounts
from ctc_ray.training.loop import EpochSettings, channel_mean_std, evaluate, train_epoch
from ctc_ray.training.losses import Workers, loss_settings
from ctc_ray.training.metrics import FinalMetrics, MetricCounts
from ctc_ray.training.optimizer import EarlyStopping, LearningRateSchedule, make_optimizer
from ctc_ray.training.plans import (
    EpochPlan,
    batch_sizes,
    list_row_groups,
    plan_epoch,
    plan_evaluation,
)
from ctc_ray.training.timed_batches import TimedBatches


class TrainingJob:
    """A model and its progress on one of `n_workers` workers."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Manifest,
        *,
        rank: int,
        n_workers: int,
        device: torch.device | str,
    ) -> None:
        self._config, self._dataset = config, dataset
        self._rename = renaming(config)
        self._rank, self._n_workers = rank, n_workers
        labels = LabelSpace.from_json(dataset.classes).select(config.heads)
        n_images = dataset.labels["train"]
        counts = {h: [n_images[h].get(c, 0) for c in labels.classes[h]] for h in labels.heads}
        workers = Workers(n_workers, sum_over_workers) if n_workers > 1 else None
        self._settings = EpochSettings(
            label_space=labels,
            loss=loss_settings(config, counts, device, workers),
            device=device,
            seed=config.seed,
            rank=rank,
            accumulate=config.accumulate,
            clip_norm=config.optimizer.clip_norm,
            augment=partial(augment_batch, settings=config.augment, linear=not is_cpu(device)),
            precision=config.precision,
            scaler=gradient_scaler(config.precision, device),
            mix=config.augment.mix,
            mix_alpha=config.augment.mix_alpha,
        )
        self._groups = {
            split: list_row_groups(config.dataset_uri, dataset.shards, split)
            for split in ("train", "val")
        }
        torch.manual_seed(stable_hash("weights", config.seed, 0))
        backbone, start = backbone_to_begin_with(
            config.model.backbone,
            pretrained=config.model.pretrained,
            image_size=config.model.image_size,
        )
        self._image_size = backbone.image_size
        normalisation = normalisation_of(config, backbone, start, self._statistics)
        self._model = make_model(config, labels, backbone, normalisation).to(device)
        self.told = with_heads_of(start, self._model, config)
        """What the weights to begin with have given, in lines for the user."""
        self._wrapped: nn.Module = self._model
        self._wrap: Callable[[nn.Module], nn.Module] = lambda model: model
        self._start = copy(self._model.backbone.state_dict()) if config.model.wise_ft < 1 else {}
        self._optimizer = make_optimizer(
            self._model, config.optimizer, weight_blocks(self._model.backbone)
        )
        self._ema = moving_average(self._model, config.model.ema_decay)
        if (ema := self._ema) is not None:
            self._optimizer.register_step_post_hook(lambda *_: ema.update_parameters(self._model))
        scale = n_workers * config.accumulate if config.optimizer.scale_with_workers else 1
        self._learning_rate = LearningRateSchedule(
            config.schedule,
            learning_rate=scale * config.optimizer.learning_rate,
            max_epochs=config.max_epochs,
        )
        self._stopping = EarlyStopping(config.early_stopping_patience)
        self._history: list[dict[str, float]] = []
        self.waited_s = 0.0
        """How long the training of the last epoch has waited for images."""
        self._best: dict[str, Tensor] = {}

    def wrap(self, for_many_workers: Callable[[nn.Module], nn.Module]) -> None:
        """Let gradients be averaged over workers."""
        if self._n_workers > 1:
            self._wrap = for_many_workers
        self._freeze()

    def _freeze(self) -> None:
        """Freeze the backbone, or let it learn, in the next epoch."""
        model = self._config.model
        is_frozen = model.freeze_backbone or len(self._history) < model.freeze_epochs
        if is_frozen != self._model.freeze_backbone or self._wrapped is self._model:
            self._model.freeze(is_frozen=is_frozen)
            self._wrapped = self._wrap(self._model)  # it counts on gradients of the same weights

    @property
    def _measured(self) -> MultiHeadModel:
        """The model that is validated and kept."""
        return self._model if self._ema is None else cast(MultiHeadModel, self._ema.module)

    @property
    def is_done(self) -> bool:
        """Whether the last epoch is over, or no epoch has been better for too long."""
        return len(self._history) >= self._config.max_epochs or self._stopping.should_stop

    def about(self) -> str:
        """What is trained, on what, in words."""
        return telling.about(
            self._config,
            self._settings,
            self._epoch_plan(0).n_items,
            image_size=self._image_size,
            n_workers=self._n_workers,
            n_val=self._n_val,
        )

    def ending(self) -> str:
        """Why there are no more epochs, and which one is kept."""
        return telling.ending(self._config, self._stopping, self._history)

    def line(self, metrics: dict[str, float]) -> str:
        """An epoch in words."""
        n_images = self._n_workers * self._epoch_plan(len(self._history) - 1).n_items + self._n_val
        return telling.epoch_line(
            self._config,
            metrics,
            epoch=len(self._history),
            images_s=n_images / metrics["seconds"],
            waited=self.waited_s / metrics["seconds"],
        )

    @property
    def _n_val(self) -> int:
        """Images of the validation split."""
        return sum(group.n_images for group in self._groups["val"])

    def next_epoch(self, tell: Callable[[str], None] = lambda _: None) -> dict[str, float]:
        """Train and evaluate once; the metrics, the same on every worker.

        Args:
            tell: takes lines for the user in the middle of a long epoch.
        """
        self._freeze()
        epoch, plan = len(self._history), self._epoch_plan(len(self._history))
        n_batches = len(batch_sizes(plan.n_items, self._config.batch_size))
        n_updates = -(-n_batches // self._config.accumulate)
        rate = partial(self._learning_rate.at, epoch, n_updates=n_updates)
        metrics = {"epoch": epoch + 1, "learning_rate": rate(0)}
        of_epoch = f"epoch {epoch + 1}/{self._config.max_epochs}: "
        batches = TimedBatches(
            read_batches(plan, self._loader_settings(self._config.augment)),
            plan.n_items,
            lambda line: tell(of_epoch + line),
        )
        trained = train_epoch(
            self._wrapped,
            batches,
            self._optimizer,
            self._settings,
            epoch=epoch,
            learning_rate=rate,
        )
        self._share_statistics()
        events = self._event_counts()
        for prefix, counts in (("train", trained), ("val", self._evaluate(events=events))):
            metrics |= {f"{prefix}_{name}": v for name, v in self._summed(counts).items()}
        metrics |= {f"val_{name}": value for name, value in self._summed(events).items()}
        self._after(epoch, metrics)
        self.waited_s = batches.waited_s
        return metrics

    def _event_counts(self, temperatures: Mapping[str, float] | None = None) -> EventCounts:
        labels, device = self._settings.label_space, self._settings.device
        return EventCounts(labels, temperatures=temperatures, device=device)

    def _evaluate(
        self, calibration: CalibrationCounts | None = None, events: EventCounts | None = None
    ) -> MetricCounts:
        """Counts of this worker's share of the validation split."""
        plan = plan_evaluation(self._groups["val"], rank=self._rank, world_size=self._n_workers)
        batches = read_batches(plan, self._loader_settings())
        return evaluate(
            self._measured, batches, self._settings, calibration=calibration, events=events
        )

    def _share_statistics(self) -> None:
        """Give every worker the batch statistics of the first, whose model is the one saved.

        Each has moved its own since the last step's forward pass.
        """
        if self._n_workers > 1:
            models = [self._model] if self._ema is None else [self._model, self._ema.module]
            for buffer in (buffer for model in models for buffer in model.buffers()):
                torch.distributed.broadcast(buffer, src=0)

    def _after(self, epoch: int, metrics: dict[str, float]) -> None:
        val_loss = metrics["val_loss"]
        if not math.isfinite(val_loss):
            raise DivergedError(
                "training diverged: the loss on the validation split is not a number after epoch "
                f"{epoch + 1}, at a learning rate of {metrics['learning_rate']:g}; try a smaller "
                "--optimizer.learning-rate, with --overwrite"
            )
        value = metrics[self._config.monitor]
        value = value if self._config.monitor_mode == "min" else -value
        self._learning_rate.step(value)
        self._stopping.step(epoch, value)
        if self._stopping.is_best or not self._best:
            self._best = copy(self._measured.state_dict())
        self._history.append(dict(metrics))

    def _summed(self, counts: MetricCounts | EventCounts) -> dict[str, float]:
        if self._n_workers > 1:
            counts.all_reduce(sum_over_workers)
        return counts.compute()

    def _epoch_plan(self, epoch: int) -> EpochPlan:
        return plan_epoch(
            self._groups["train"],
            image_choice=self._config.image_choice,
            seed=self._config.seed,
            epoch=epoch,
            rank=self._rank,
            world_size=self._n_workers,
        )

    def _loader_settings(self, augment: AugmentConfig | None = None) -> LoaderSettings:
        """How images are decoded: changed at random, or (None) as for evaluation."""
        size, keep_aspect = self._image_size, self._config.model.keep_aspect
        return LoaderSettings(
            self._settings.label_space,
            partial(
                decode,
                image_size=size,
                keep_aspect=keep_aspect,
                settings=augment,
                linear=is_cpu(self._settings.device),
            ),
            self._config.batch_size,
            self._rename,
            self._config.decode_threads,
        )

    def _statistics(self) -> Normalisation:
        """Mean and deviation of training images: the same for every worker, run and restart."""
        plan = plan_epoch(
            self._groups["train"], image_choice="random", seed=self._config.seed, epoch=0
        )
        found = channel_mean_std(read_batches(plan, self._loader_settings()))
        return found.mean, found.std

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """The metrics of each epoch that is finished."""
        return self._history

    @property
    def n_epochs(self) -> int:
        """Epochs that are finished."""
        return len(self._history)

    def state(self) -> bytes:
        """The state after the last epoch: all that the next epoch depends on."""
        state = {
            "model": self._model.state_dict(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "learning_rate": self._learning_rate.state_dict(),
            "stopping": self._stopping.state_dict(),
            "history": self._history,
            "scaler": self._settings.scaler.state_dict(),
            "ema": None if self._ema is None else self._ema.state_dict(),
        }
        content = io.BytesIO()
        torch.save(state, content)
        return content.getvalue()

    def load_state(self, content: bytes) -> None:
        """Resume from what `state` returned."""
        state = torch.load(
            io.BytesIO(content), weights_only=True, map_location=self._settings.device
        )
        self._model.load_state_dict(state["model"])
        self._best = copy(state["best"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._learning_rate.load_state_dict(state["learning_rate"])
        self._stopping.load_state_dict(state["stopping"])
        self._history = state["history"]
        self._settings.scaler.load_state_dict(state["scaler"])
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"])

    def end(self) -> FinalMetrics:
        """Make the model that is kept, and measure it; every worker must call this."""
        self._measured.load_state_dict(self._best)
        if (share := self._config.model.wise_ft) < 1:
            backbone = self._measured.backbone
            backbone.load_state_dict(between(self._start, backbone.state_dict(), share))
        calibration = CalibrationCounts(self._settings.label_space, device=self._settings.device)
        events = self._event_counts()
        counts = self._evaluate(calibration, events)
        if self._n_workers > 1:
            calibration.all_reduce(sum_over_workers)
        calibrations = calibration.compute()
        temperatures = {head: found.temperature for head, found in calibrations.items()}
        if any(value != 1 for value in temperatures.values()):  # they change means of probabilities
            events = self._event_counts(temperatures)
            self._evaluate(events=events)
        return FinalMetrics(
            epoch=self._stopping.best_epoch + 1,
            metrics=self._summed(counts) | self._summed(events),
            classes={head: counts.per_class(head) for head in self._settings.label_space.heads},
            calibrations=calibrations,
        )

    def write_bundle(self, final: FinalMetrics) -> None:
        """Write the model that is kept, its metrics, and the history of all epochs."""
        config = self._config
        provenance = Provenance(
            config=config.model_dump(mode="json"),
            data_fingerprint=manifest_fingerprint(config.dataset_uri),
            metrics=final.with_calibration(),
            n_training_images={h: self._dataset.labels["train"][h] for h in config.heads},
        )
        bundle = Bundle(
            self._measured,
            self._image_size,
            config.model.keep_aspect,
            provenance,
            {head: found.temperature for head, found in final.calibrations.items()},
        )
        history = csv_of_records(self._history)
        storage.write_bytes(storage.join(config.output_uri, HISTORY_FILE), history)
        metrics = final.for_file(self._settings.label_space, monitor=config.monitor)
        storage.write_json(storage.join(config.output_uri, METRICS_FILE), metrics)
        save_bundle(config.output_uri, bundle)
