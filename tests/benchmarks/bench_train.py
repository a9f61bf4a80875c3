"""Honest accuracy on a CPU: trashnet_192, a fixed 80/20 split by the hash of the file name.

small_cnn from scratch at 64 px, and an EfficientNet-Lite0 with ImageNet weights, frozen and
fine-tuned; each with the defaults and with those of camera-trap-classifier (`--preset original`).

    PYTHONPATH=tests python tests/benchmarks/bench_train.py [--seeds 1] [RUN ...]
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from builders import trashnet_dataset
from measure import PHOTOS, machine

from ctc_ray.config.training import TrainConfig
from ctc_ray.stages.train import stage as train

LABELLED = PHOTOS.parent / "labelled"
WEIGHTS = PHOTOS.parent / "backbones" / "tf_efficientnet_lite0.safetensors"
LITE0 = {"backbone": "tf_efficientnet_lite0", "image_size": 160, "pretrained": str(WEIGHTS)}
RUNS: dict[str, dict[str, Any]] = {
    "small_cnn, 64 px, 12 epochs": {
        "model": {"backbone": "small_cnn", "image_size": 64},
        "max_epochs": 12,
    },
    "Lite0 frozen, 160 px, 6 epochs": {
        "model": {**LITE0, "freeze_backbone": True},
        "max_epochs": 6,
    },
    "Lite0 fine-tuned, 160 px, 5 epochs": {
        "model": {**LITE0, "freeze_epochs": 1},
        "max_epochs": 5,
    },
}


def trained(dataset: Path, output: Path, fields: dict[str, Any]) -> tuple[float, float, float]:
    """Accuracy, macro F1, and CPU minutes."""
    config = TrainConfig.model_validate(
        {
            "dataset_uri": str(dataset),
            "output_uri": str(output),
            "heads": ["class"],
            "batch_size": 64,
            **fields,
        }
    )
    began = time.process_time()
    manifest = train.run(config)
    (row,) = manifest.summary["on the validation split"]
    return row["accuracy"], row["macro_f1"], (time.process_time() - began) / 60


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("runs", nargs="*", help="numbers of runs, from 0; all if none is given")
    asked = parser.parse_args()
    if not LABELLED.is_dir():
        raise SystemExit(f"{LABELLED}: not there")
    chosen = [list(RUNS)[int(number)] for number in asked.runs] or list(RUNS)
    with tempfile.TemporaryDirectory() as temporary:
        dataset = trashnet_dataset(LABELLED, Path(temporary))
        print(f"trashnet_192, {asked.seeds} seeds, batch 64, one worker; {machine()}\n")
        print("| run | preset | accuracy | macro F1 | CPU minutes |\n|---|---|---|---|---|")
        for name in chosen:
            for preset in ("default", "original"):
                found = [
                    trained(
                        dataset,
                        Path(temporary) / f"{name} {preset} {seed}",
                        {**RUNS[name], "preset": preset, "seed": seed},
                    )
                    for seed in range(asked.seeds)
                ]
                accuracy, f1, minutes = np.mean(found, axis=0)
                print(
                    f"| {name} | {preset} | {accuracy:.3f} | {f1:.3f} | {minutes:.1f} |", flush=True
                )


if __name__ == "__main__":
    main()
