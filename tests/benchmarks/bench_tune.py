"""Searches on trashnet_192 beside the default configuration: what they find, and what they cost.

A fixed split by the hash of the file name: 60 % to learn from, 20 % by which trials are compared,
20 % that no search sees. small_cnn at 64 pixels; the strength of all random changes and the
learning rate are searched. random, optuna and pbt see equally many images; asha stops trials early.

    PYTHONPATH=tests python tests/benchmarks/bench_tune.py [default asha random optuna pbt]
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from builders import labelled_dataset, three_splits_by_name
from measure import PHOTOS, machine

from ctc_ray.config.base import build
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.models.bundle import read_provenance
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.tune import stage as tune
from ctc_ray.stages.tune.records import read_ended

LABELLED = PHOTOS.parent / "labelled" / "trashnet_192"
METRIC = "val_accuracy_class"
EPOCHS = 12
BASE: dict[str, Any] = {
    "heads": ["class"],
    "batch_size": 64,
    "monitor": METRIC,
    "early_stopping_patience": 0,
    "model": {"backbone": "small_cnn", "image_size": 64},
}
SEARCHES: dict[str, dict[str, Any]] = {
    "asha": {"trials": 16, "reduction_factor": 3},
    "random": {"trials": 8, "stopping": "none"},
    "optuna": {"trials": 8, "stopping": "none", "method": "optuna"},
    "pbt": {"trials": 24, "population": 4, "method": "pbt"},
}
EPOCHS_OF = {"pbt": EPOCHS // 3}  # of a generation
SEEDS = 3


def accuracies(config: TrainConfig, output: Path) -> tuple[float, float]:
    """Train; the accuracies on the splits val and test."""
    train.run(config.replaced(output_uri=str(output), test_split=True))
    found = read_provenance(str(output))
    return found.metrics["accuracy_class"], found.test_metrics["accuracy_class"]


def row(name: str, n_images: int, minutes: float, found: list[tuple[float, float]]) -> str:
    val, test = (sum(values) / len(values) for values in zip(*found, strict=True))
    each = ", ".join(f"{value:.3f}" for _, value in found)
    return f"| {name} | {n_images:,} | {minutes:.1f} | {val:.3f} | {test:.3f} | {each} |"


def searched(name: str, dataset: Path, folder: Path, n_at_once: int) -> str:
    shared = {**BASE, "dataset_uri": str(dataset), "max_epochs": EPOCHS_OF.get(name, EPOCHS)}
    config = TuneConfig.model_validate(
        {
            "output_uri": str(folder / name),
            "preset": "augmentation",
            "space": {"optimizer.learning_rate": {"loguniform": [0.001, 0.03]}},
            "metric": METRIC,
            "concurrent_trials": n_at_once,
            "train": shared,
            **SEARCHES[name],
        }
    )
    began = time.perf_counter()
    tune.run(config)
    minutes = (time.perf_counter() - began) / 60
    n_images = sum(one.n_images for one in read_ended(config.output_uri).values())
    values = yaml.safe_load((folder / name / "best.yaml").read_text())
    best = build(TrainConfig, values, where="best.yaml")
    found = [
        accuracies(best.replaced(seed=seed), folder / f"{name}-best-{seed}")
        for seed in range(SEEDS)
    ]
    return row(f"best of {name}, {SEARCHES[name]['trials']} trials", n_images, minutes, found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials-at-once", type=int, default=2)
    parser.add_argument("searches", nargs="*", choices=["default", *SEARCHES], default=[])
    asked = parser.parse_args()
    if not LABELLED.is_dir():
        raise SystemExit(f"{LABELLED}: not there")
    images = {path: path.parent.name for path in sorted(LABELLED.glob("*/*.jpg"))}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = labelled_dataset(images, LABELLED, folder, three_splits_by_name)
        print(f"trashnet_192, small_cnn, {asked.trials_at_once} trials at once; {machine()}\n")
        print("| configuration | images seen | minutes | val | test | each seed on test |")
        print("|---|---|---|---|---|---|", flush=True)
        for search in asked.searches or ["default", *SEARCHES]:
            if search == "default":
                values = {**BASE, "dataset_uri": str(dataset), "max_epochs": EPOCHS}
                config = TrainConfig.model_validate({**values, "output_uri": str(folder / "d")})
                began = time.perf_counter()
                found = [
                    accuracies(config.replaced(seed=seed), folder / f"default-{seed}")
                    for seed in range(SEEDS)
                ]
                print(row("default", 0, (time.perf_counter() - began) / 60, found), flush=True)
            else:
                print(searched(search, dataset, folder, asked.trials_at_once), flush=True)


if __name__ == "__main__":
    main()
