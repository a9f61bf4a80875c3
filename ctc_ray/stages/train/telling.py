"""What a training tells the user, in words: what it is, each epoch, and why it ends."""

from collections.abc import Mapping, Sequence
from shlex import quote

import torch

from ctc_ray.config.training import TrainConfig
from ctc_ray.console.progress import clock
from ctc_ray.files import storage
from ctc_ray.stages.train.pixels import is_cpu
from ctc_ray.stages.train.report import PAGE_FILE
from ctc_ray.training.loop import EpochSettings
from ctc_ray.training.optimizer import EarlyStopping
from ctc_ray.training.plans import batch_sizes


def about(
    config: TrainConfig,
    settings: EpochSettings,
    n_items: int,
    *,
    image_size: int,
    n_workers: int,
    n_val: int,
) -> str:
    """What is trained, on what.

    Args:
        n_items: images per epoch and worker.
        n_val: images of the validation split.
    """
    sizes = batch_sizes(n_items, config.batch_size)
    heads = ", ".join(
        f"{head} ({settings.label_space.n_classes(head)} classes)" for head in config.heads
    )
    device = "CPU" if is_cpu(settings.device) else torch.cuda.get_device_name()
    workers = f"{n_workers} worker{'' if n_workers == 1 else 's'}"
    return (
        f"train: {heads}; {config.model.backbone} at {image_size} pixels; "
        f"{n_workers * n_items:,} images per epoch, {n_val:,} to validate; "
        f"{workers} on {device}, {len(sizes):,} batches of {max(sizes)}"
    )


def epoch_line(config: TrainConfig, metrics: Mapping[str, float], *, epoch: int) -> str:
    """A finished epoch: losses, accuracies, rate, time to go if no epoch is saved.

    Args:
        metrics: and the speed, see `tensorboard.SPEED`.
        epoch: its number, from 1.
    """
    heads = ", ".join(
        f"{head} {_accuracy(head, metrics)}"
        for head in config.heads
        if f"val_accuracy_{head}" in metrics
    )
    return (
        f"epoch {epoch}/{config.max_epochs}: loss {metrics['train_loss']:.3f}, "
        f"val_loss {metrics['val_loss']:.3f}, val accuracy: {heads}, "
        f"{metrics['images_per_s']:.0f} images/s, "
        f"{metrics['waiting_share']:.0%} waiting for images, "
        f"{clock((config.max_epochs - epoch) * metrics['seconds'])} to go"
    )


def _accuracy(head: str, metrics: Mapping[str, float]) -> str:
    """Accuracy per image, and per event where a labelled event has several images."""
    of_images = f"{metrics[f'val_accuracy_{head}']:.3f}"
    if metrics[f"val_event_n_{head}"] == metrics[f"val_n_{head}"]:
        return of_images
    return f"{of_images} (events {metrics[f'val_event_accuracy_{head}']:.3f})"


def ending(
    config: TrainConfig, stopping: EarlyStopping, history: Sequence[Mapping[str, float]]
) -> str:
    """Why there are no more epochs, and which one is kept."""
    why = (
        f"{config.monitor} has not become better for {config.early_stopping_patience} epochs"
        if stopping.should_stop and len(history) < config.max_epochs
        else f"all {config.max_epochs} epochs are done"
    )
    value = history[stopping.best_epoch][config.monitor]
    return f"{why}; epoch {stopping.best_epoch + 1} is kept, with {config.monitor} {value:.4f}"


def how_to_view(output_uri: str) -> str:
    """Where the report of a training is, and the commands that show its TensorBoard files."""
    page = storage.join(output_uri, PAGE_FILE)
    return f"see {page}, or run: {tensorboard_command(output_uri, 'tensorboard')}"


def tensorboard_command(output_uri: str, folder: str, *, is_only_events: bool = True) -> str:
    """The command that shows the TensorBoard files of a folder in an output, here or in a store.

    Args:
        is_only_events: whether the folder holds no other files.
    """
    name = output_uri.rstrip("/").rpartition("/")[2]
    files, copy = storage.join(output_uri, folder), f"{name}/{folder}"
    if not storage.is_remote(output_uri):
        return f"tensorboard --logdir {quote(files)}"
    if output_uri.startswith("s3://"):
        chosen = "" if is_only_events else " --exclude '*' --include '*tfevents*'"
        copying = f"aws s3 sync{chosen} {quote(files)} {quote(copy)}"
    else:
        chosen = "" if is_only_events else " --exclude='^(?!.*tfevents).*$'"
        copying = f"gcloud storage rsync -r{chosen} {quote(files)} {quote(copy)}"
    return f"{copying} && tensorboard --logdir {quote(copy)}"
