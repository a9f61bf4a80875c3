"""The images of a training, as one of its workers reads them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from ctc_ray.config.training import AugmentConfig, TrainConfig
from ctc_ray.files.row_groups import RowGroupReader
from ctc_ray.labels import LabelSpace
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.records import PixelRecord
from ctc_ray.stages.train.first_model import Normalisation
from ctc_ray.stages.train.mapped_classes import renaming
from ctc_ray.stages.train.pixels import decoder, decoder_of_batches, stacker
from ctc_ray.training.batches import Batch, LoaderSettings, read_batches, read_parts
from ctc_ray.training.device_batches import ToDevice
from ctc_ray.training.epoch_shares import Share
from ctc_ray.training.loop import channel_mean_std
from ctc_ray.training.plans import (
    EpochPlan,
    PlanPart,
    list_row_groups,
    plan_epoch,
    plan_evaluation,
)
from ctc_ray.training.sampling import class_sampling


class TrainingData:
    """The images of a dataset that a training learns from, and those that measure it."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Manifest,
        labels: LabelSpace,
        counts: Mapping[str, Sequence[int]],
        *,
        image_size: int,
        device: torch.device | str,
    ) -> None:
        """Nothing is read yet.

        Args:
            counts: head -> training images of each class.
            image_size: width and height of the images.
            device: where the network computes; on a GPU, it changes the colours.

        Raises:
            ConfigError: images shall be decoded on the device, and torchvision cannot.
        """
        self._config, self._dataset, self._labels = config, dataset, labels
        self._image_size, self._device = image_size, device
        self._to_device = to_device = ToDevice(device)
        self._decode_all = decoder_of_batches(config, config.changes, image_size, to_device)
        self._rename = renaming(config)
        self._row_groups = RowGroupReader()
        self._sampling = class_sampling(config.sampling, config.sampled_head, counts)
        self._groups = {
            part: list_row_groups(config.dataset_uri, dataset.shards, *splits)
            for part, splits in config.parts.items()
        }

    @property
    def n_val(self) -> int:
        """Images that are measured after each epoch."""
        return sum(group.n_items(self._config.evaluated) for group in self._groups["val"])

    def plan(self, epoch: int, *, rank: int, n_workers: int) -> EpochPlan:
        """What a worker reads in an epoch, from 0."""
        return plan_epoch(
            self._groups["train"],
            image_choice=self._config.image_choice,
            seed=self._config.seed,
            epoch=epoch,
            rank=rank,
            world_size=n_workers,
        )

    def batches(self, share: Share, epoch: int, *, first_batch: int) -> Iterator[Batch]:
        """The batches of a share of an epoch, from 0, changed at random; see `read_parts`."""
        parts = [
            PlanPart(
                self.plan(epoch, rank=stretch.rank, n_workers=stretch.n_workers),
                stretch.start,
                stretch.stop,
            )
            for stretch in share
        ]
        settings = replace(self._loader_settings(self._config.changes), decode_all=self._decode_all)
        return read_parts(parts, self._sending(settings), first_batch=first_batch)

    def to_measure(self, part: str, *, rank: int, n_workers: int) -> Iterator[Batch]:
        """The batches of a worker's share of val or test, unchanged and in their order."""
        plan = plan_evaluation(
            self._groups[part], self._config.evaluated, rank=rank, world_size=n_workers
        )
        return read_batches(plan, self._sending(self._loader_settings()))

    def statistics(self) -> Normalisation:
        """Mean and deviation of training images: the same for every worker, run and restart.

        They are in the dataset's manifest, but for stacks and for datasets that are older.
        """
        config = self._config
        known = None if config.is_stack else self._dataset.pixels_of(config.train_splits)
        found = known or self._measured_pixels()
        return found.mean, found.std

    def _measured_pixels(self) -> PixelRecord:
        groups, choice = self._groups["train"], self._config.one_per_event
        plan = plan_epoch(groups, image_choice=choice, seed=self._config.seed, epoch=0)
        return channel_mean_std(read_batches(plan, self._loader_settings()))

    def _sending(self, settings: LoaderSettings) -> LoaderSettings:
        """With batches that are copied to the device ahead of the training."""
        return replace(settings, send=self._to_device.send)

    def _loader_settings(self, augment: AugmentConfig | None = None) -> LoaderSettings:
        """How images are sampled and decoded: changed at random, or (None) as for evaluation."""
        return LoaderSettings(
            self._labels,
            decoder(self._config, augment, self._image_size, self._device),
            self._config.batch_size,
            self._rename,
            self._config.decode_threads,
            self._row_groups,
            self._sampling if augment else None,
            stacker(self._config),
        )
