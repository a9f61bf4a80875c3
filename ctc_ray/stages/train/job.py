"""One worker's training job: model, data and state, put together from the nouns.

The state after an epoch, or within one, is all that the rest depends on, so a job that is loaded
continues as if it had never stopped.
"""

import io
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ctc_ray.columns.seeds import stable_hash
from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import DivergedError
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import weight_blocks
from ctc_ray.models.low_rank import merge_low_rank
from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.models.starting_weights import backbone_to_begin_with
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.train import result, samples, telling
from ctc_ray.stages.train.computing import compile_backbone
from ctc_ray.stages.train.data import TrainingData
from ctc_ray.stages.train.first_model import make_model, normalisation_of, with_heads_of
from ctc_ray.stages.train.in_epoch import InEpoch
from ctc_ray.stages.train.measuring import Measuring
from ctc_ray.stages.train.pauses import Pauses
from ctc_ray.stages.train.pixels import augmenter
from ctc_ray.stages.train.tensorboard import SPEED
from ctc_ray.stages.train.weights import (
    between,
    copy,
    gradient_scaler,
    moving_average,
    sum_over_workers,
)
from ctc_ray.training.batches import Batch
from ctc_ray.training.epoch_shares import Stretch, n_items
from ctc_ray.training.final_metrics import FinalMetrics
from ctc_ray.training.loop import EpochSettings, Updates, new_counts, train_epoch
from ctc_ray.training.losses import Workers, loss_settings
from ctc_ray.training.metrics import MetricCounts
from ctc_ray.training.optimizer import EarlyStopping, LearningRateSchedule, make_optimizer
from ctc_ray.training.plans import batch_sizes
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
        self._rank, self._n_workers = rank, n_workers
        labels = LabelSpace.from_json(dataset.classes).select(config.heads)
        n_images = dataset.labels_of(config.train_splits)
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
            augment=augmenter(config, device),
            precision=config.precision,
            scaler=gradient_scaler(config.precision, device),
            mix=config.augment.mix,
            mix_alpha=config.augment.mix_alpha,
        )
        torch.manual_seed(stable_hash("weights", config.seed, 0))
        backbone, start = backbone_to_begin_with(
            config.model.backbone,
            pretrained=config.model.pretrained,
            image_size=config.model.image_size,
        )
        self._image_size = backbone.image_size
        self._data = TrainingData(
            config, dataset, labels, counts, image_size=self._image_size, device=device
        )
        self._measuring = Measuring(self._settings, self._to_measure, self._sum)
        normalisation = normalisation_of(config, backbone, start, self._data.statistics)
        self._model = make_model(config, labels, backbone, normalisation).to(device)
        self.told = with_heads_of(start, self._model, config)
        """What the weights to begin with have given, and what cannot be done, in lines."""
        if config.compile:
            self.told += compile_backbone(self._model, device)
        self._wrapped: nn.Module = self._model
        self._wrap: Callable[[nn.Module], nn.Module] = lambda model: model
        self._start = copy(self._model.backbone.state_dict()) if config.model.wise_ft < 1 else {}
        self._optimizer = make_optimizer(
            self._model,
            config.optimizer,
            weight_blocks(self._model.backbone),
            backbone_rate=config.backbone_rate,
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
        self._n_trained = 0  # images of the last epoch, of all workers, since a state was loaded
        self._in_epoch: InEpoch | None = None
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
            self._n_items(0),
            image_size=self._image_size,
            n_workers=self._n_workers,
            n_val=self._data.n_val,
        )

    def ending(self) -> str:
        """Why there are no more epochs, and which one is kept."""
        return telling.ending(self._config, self._stopping, self._history)

    def line(self, metrics: dict[str, float]) -> str:
        """An epoch in words, from its metrics and its speed."""
        return telling.epoch_line(self._config, metrics, epoch=len(self._history))

    def speed(self, seconds: float) -> dict[str, float]:
        """How fast the last epoch was since a state was loaded; see `tensorboard.SPEED`."""
        rate = (self._n_trained + self._data.n_val) / seconds
        values = (round(seconds, 2), round(rate, 1), round(self.waited_s / seconds, 4))
        return dict(zip(SPEED, values, strict=True))

    def write_samples(self) -> None:
        """Write images of the first epoch as the model sees them, before they are mixed."""
        n_images = min(samples.N_SAMPLES, self._n_items(0))
        share = (Stretch(self._n_workers, self._rank, 0, n_images),)
        batches = list(self._data.batches(share, 0, first_batch=0))
        samples.write(self._config.output_uri, batches, self._settings)

    def next_epoch(
        self,
        tell: Callable[[str], None] = lambda _: None,
        *,
        is_wanted: Callable[[], bool] = lambda: False,
        save: Callable[["TrainingJob"], None] = lambda _: None,
    ) -> dict[str, float]:
        """Train and evaluate once, or do the rest of the epoch that a loaded state has begun.

        Args:
            tell: takes lines for the user in the middle of a long epoch.
            is_wanted: asked on every worker about every ten seconds, after the same update of the
                weights; whether the first worker shall save the state now.
            save: called on the first worker, if it is.

        Returns:
            The metrics, the same on every worker.
        """
        self._freeze()
        config, epoch = self._config, len(self._history)
        self._in_epoch = self._in_epoch or InEpoch.begin(self._n_items(epoch), self._n_workers)
        begun = self._in_epoch = self._in_epoch.for_workers(
            self._n_workers, batch_size=config.batch_size, accumulate=config.accumulate
        )
        share = begun.shares[self._rank]
        sizes = batch_sizes(n_items(share), config.batch_size)
        n_updates = begun.n_before - (-len(sizes) // config.accumulate)
        first_batch = (begun.n_updates - begun.n_before) * config.accumulate
        rate = partial(self._learning_rate.at, epoch, n_updates=n_updates)
        metrics = {"epoch": epoch + 1, "learning_rate": rate(0)}
        of_epoch = f"epoch {epoch + 1}/{config.max_epochs}: "
        batches = TimedBatches(
            self._data.batches(share, epoch, first_batch=first_batch),
            sum(sizes[first_batch:]),
            lambda line: tell(of_epoch + line),
        )
        counts = new_counts(self._settings)
        if begun.counts_WN is not None:
            counts.unpack(begun.counts_WN[self._rank])
        pauses = Pauses(
            self._sum, is_first=self._rank == 0, device=torch.device(self._settings.device)
        )

        def after_update(n_done: int, counts: MetricCounts) -> None:
            if n_done < n_updates and pauses.is_now() and pauses.agree(is_wanted):
                self._in_epoch = begun.after(
                    n_done, counts, rank=self._rank, sum_over_workers=self._sum
                )
                if self._rank == 0:
                    save(self)

        trained = train_epoch(
            self._wrapped,
            batches,
            self._optimizer,
            self._settings,
            epoch=epoch,
            updates=Updates(rate, begun.n_updates, counts, after_update),
        )
        self._share_statistics()
        trained.all_reduce(self._sum)
        val = self._measuring.on(self._measured, "val")
        for prefix, found in (("train", trained.compute()), ("val", val.metrics)):
            metrics |= {f"{prefix}_{name}": value for name, value in found.items()}
        self._after(epoch, metrics)
        self._in_epoch = None
        self.waited_s, self._n_trained = batches.waited_s, self._n_workers * batches.n_images
        return metrics

    def _n_items(self, epoch: int) -> int:
        """Images that each worker reads in an epoch."""
        return self._data.plan(epoch, rank=self._rank, n_workers=self._n_workers).n_items

    def _sum(self, tensor: Tensor) -> Tensor:
        """The sum over all workers; each must call this."""
        return sum_over_workers(tensor) if self._n_workers > 1 else tensor

    def _to_measure(self, part: str) -> Iterator[Batch]:
        """The batches of this worker's share of val or test."""
        return self._data.to_measure(part, rank=self._rank, n_workers=self._n_workers)

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

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """The metrics of each epoch that is finished."""
        return self._history

    @property
    def n_epochs(self) -> int:
        """Epochs that are finished."""
        return len(self._history)

    def place(self) -> str:
        """How far the training is, in words."""
        if self.n_updates:
            return f"in epoch {self.n_epochs + 1}, after {self.n_updates} updates of the weights"
        return f"after epoch {self.n_epochs}"

    @property
    def n_updates(self) -> int:
        """Updates of the weights since the last finished epoch, in a state to save or loaded."""
        return 0 if self._in_epoch is None else self._in_epoch.n_updates

    def state(self) -> bytes:
        """All that the rest of the training depends on."""
        state = {
            "model": self._model.state_dict(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "learning_rate": self._learning_rate.state_dict(),
            "stopping": self._stopping.state_dict(),
            # one object per name: pickle writes another object of the same name in full again
            "history": [{sys.intern(k): v for k, v in row.items()} for row in self._history],
            "in_epoch": None if self._in_epoch is None else self._in_epoch.state(),
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
        begun = state["in_epoch"]
        self._in_epoch = None if begun is None else InEpoch.from_state(begun)
        self._settings.scaler.load_state_dict(state["scaler"])
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"])

    def end(self) -> FinalMetrics:
        """Make the model that is kept, and measure it; every worker must call this."""
        self._measured.load_state_dict(self._best)
        if (share := self._config.model.wise_ft) < 1:
            backbone = self._measured.backbone
            backbone.load_state_dict(between(self._start, backbone.state_dict(), share))
        merge_low_rank(self._measured.backbone)
        return self._measuring.kept(
            self._measured, epoch=self._stopping.best_epoch + 1, on_test=self._config.test_split
        )

    def write_bundle(self, final: FinalMetrics) -> None:
        """Write the model that is kept, its metrics, and the history of all epochs."""
        result.write(
            self._config,
            self._dataset,
            self._measured,
            self._image_size,
            final=final,
            history=self._history,
        )
