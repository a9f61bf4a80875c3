r"""Whole trainings beside timm's own train script: images per second and accuracy.

Both learn the same images with the same network, size, batch, optimizer, schedule and strength of
augmentation, one process on all CPUs; both read from the disk: ours the shards of a dataset, timm's
a folder of files per class. Accuracy is that of the epoch that is kept, on the validation split.

    git clone https://github.com/huggingface/pytorch-image-models
    PYTHONPATH=tests python tests/benchmarks/bench_timm.py \
        --script pytorch-image-models/train.py [--seeds 3]
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from builders import labelled_dataset, split_by_name
from measure import PHOTOS, machine

LABELLED = PHOTOS.parent / "labelled"
WEIGHTS = PHOTOS.parent / "backbones" / "tf_efficientnet_lite0.safetensors"
JITTER = 0.2
BATCH = 64


@dataclass(frozen=True)
class Task:
    """One training that both do."""

    images: str
    backbone: str
    size: int
    epochs: int
    learning_rate: float
    weights: Path | None = None


TASKS = {
    "trashnet, resnet18 from scratch, 96 px, 6 epochs": Task(
        "trashnet_192", "resnet18", 96, 6, 0.001
    ),
    "trashnet, Lite0 fine-tuned, 160 px, 3 epochs": Task(
        "trashnet_192", "tf_efficientnet_lite0", 160, 3, 0.001, WEIGHTS
    ),
    "cats_dogs, Lite0 fine-tuned, 160 px, 20 epochs": Task(
        "cats_dogs", "tf_efficientnet_lite0", 160, 20, 0.001, WEIGHTS
    ),
}


def images_of(name: str) -> dict[Path, str]:
    """Image -> class."""
    root = LABELLED / name
    if name == "trashnet_192":
        return {path: path.parent.name for path in sorted(root.glob("*/*.jpg"))}
    files = sorted(path for path in root.rglob("*.*") if path.suffix.lower() != ".md")
    return {path: re.match("[a-z]+", path.name.lower())[0] for path in files}  # type: ignore[index]


def as_folders(images: dict[Path, str], folder: Path) -> dict[str, int]:
    """Links as <split>/<class>/<file>; the number of images of each split."""
    n_images = {"train": 0, "val": 0}
    for path, label in images.items():
        split = split_by_name(path)
        n_images[split] += 1
        link = folder / split / label / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return n_images


def command_of_timm(script: Path, task: Task, folder: Path, output: Path, seed: int) -> list[str]:
    start = ["--pretrained-path", str(task.weights), "--pretrained"] if task.weights else []
    n_classes = len(list((folder / "train").iterdir()))
    return [
        *(sys.executable, str(script), str(folder), "--train-split", "train", "--val-split", "val"),
        *("--model", task.backbone, "--num-classes", str(n_classes), *start),
        *("--img-size", str(task.size), "--batch-size", str(BATCH), "--seed", str(seed)),
        *("--epochs", str(task.epochs), "--opt", "adamw", "--lr", str(task.learning_rate)),
        *("--weight-decay", "0.05", "--sched", "cosine", "--sched-on-updates"),
        *("--warmup-epochs", "1", "--warmup-lr", "1e-6", "--warmup-prefix", "--smoothing", "0.1"),
        *("--scale", "0.75", "1", "--ratio", "0.9", "1.1", "--color-jitter", str(JITTER)),
        *("--crop-pct", "1", "--channels-last", "--device", "cpu", "--workers", "2"),
        *("--output", str(output), "--experiment", "run", "--log-interval", "1000"),
    ]


def command_of_ours(task: Task, dataset: Path, output: Path, seed: int) -> list[str]:
    return [
        *(sys.executable, "-m", "ctc_ray", "train", "--dataset-uri", str(dataset)),
        *("--output-uri", str(output), "--heads", "class", "--model.backbone", task.backbone),
        *("--model.pretrained", str(task.weights) if task.weights else "false"),
        *("--model.image-size", str(task.size), "--batch-size", str(BATCH), "--seed", str(seed)),
        *("--max-epochs", str(task.epochs), "--optimizer.learning-rate", str(task.learning_rate)),
        # the script cuts out 75 % of the area or more, and neither rotates nor enlarges the view
        *("--augment.zoom", "0", "--augment.rotate", "0", "--augment.crop", "0.134"),
        *("--augment.brightness", str(JITTER), "--augment.contrast", str(JITTER)),
        *("--augment.saturation", str(JITTER), "--augment.hue", "0", "--augment.gray", "0"),
        *("--optimizer.backbone-rate", "1"),
        *("--monitor", "val_accuracy_class", "--early-stopping-patience", "0"),
    ]


def accuracy_of_timm(output: Path) -> float:
    with (output / "run" / "summary.csv").open() as file:
        return max(float(row["eval_top1"]) for row in csv.DictReader(file)) / 100


def accuracy_of_ours(output: Path) -> float:
    with (output / "history.csv").open() as file:
        return max(float(row["val_accuracy_class"]) for row in csv.DictReader(file))


def measured(command: list[str], accuracy: Callable[[], float]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and accuracy."""
    began, used = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    now = os.times()
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    return time.perf_counter() - began, cpu, accuracy()


def row(name: str, who: str, found: list[tuple[float, float, float]], n_seen: int) -> str:
    seconds, cpu, accuracy = np.array(found).T
    return (
        f"| {name} | {who} | {n_seen / seconds.mean():.1f} | {cpu.mean() / n_seen * 1000:.1f} | "
        f"{accuracy.mean():.3f} | {', '.join(f'{value:.3f}' for value in accuracy)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--script", type=Path, help="timm's train.py")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("tasks", nargs="*", help="numbers of trainings, from 0; all if none")
    asked = parser.parse_args()
    if not LABELLED.is_dir():
        raise SystemExit(f"{LABELLED}: not there")
    if asked.script is None:  # `make bench` has none
        print("--script was not given: timm's train.py is not part of its package")
        return
    chosen = [list(TASKS)[int(number)] for number in asked.tasks] or list(TASKS)
    print(f"batch {BATCH}, adamw, cosine, {asked.seeds} seeds; {machine()}\n")
    print("| training | by | images/s, all seconds counted | CPU ms per image | accuracy | each |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        for title in chosen:
            task = TASKS[title]
            images = images_of(task.images)
            folder = temporary / title / "files"
            n_images = as_folders(images, folder)
            whole = n_images["train"] // BATCH * BATCH  # timm's script drops the rest of an epoch
            n_seen = {
                "timm's script": task.epochs * (whole + n_images["val"]),
                "ctc train": task.epochs * sum(n_images.values()),
            }
            dataset = labelled_dataset(images, LABELLED / task.images, temporary / title)
            found: dict[str, list[tuple[float, float, float]]] = {
                "timm's script": [],
                "ctc train": [],
            }
            for seed in range(asked.seeds):
                output = temporary / title / f"timm-{seed}"
                found["timm's script"].append(
                    measured(
                        command_of_timm(asked.script, task, folder, output, seed),
                        lambda output=output: accuracy_of_timm(output),  # type: ignore[misc]
                    )
                )
                output = temporary / title / f"ours-{seed}"
                found["ctc train"].append(
                    measured(
                        command_of_ours(task, dataset, output, seed),
                        lambda output=output: accuracy_of_ours(output),  # type: ignore[misc]
                    )
                )
            for who, values in found.items():
                print(row(title, who, values, n_seen[who]), flush=True)


if __name__ == "__main__":
    main()
