"""Honest accuracy on a CPU: trashnet_192, a fixed 80/20 split by the hash of the file name.

small_cnn from scratch at 64 px, and a frozen EfficientNet-Lite0 with ImageNet weights.
"""

import tempfile
import time
from pathlib import Path

from builders import trashnet_config, trashnet_dataset
from measure import PHOTOS, peak_memory

from ctc_ray.config.training import ModelConfig, OptimizerConfig
from ctc_ray.stages.cluster.connect import connect
from ctc_ray.stages.train import stage as train

LABELLED = PHOTOS.parent / "labelled"
WEIGHTS = PHOTOS.parent / "backbones" / "tf_efficientnet_lite0.safetensors"
RUNS = {
    "small_cnn from scratch, 64 px, 12 epochs": (
        ModelConfig(backbone="small_cnn", image_size=64),
        OptimizerConfig(name="adamw", learning_rate=0.003, weight_decay=0.01),
        12,
    ),
    "tf_efficientnet_lite0 frozen, 160 px, 6 epochs": (
        ModelConfig(
            backbone="tf_efficientnet_lite0",
            image_size=160,
            pretrained=str(WEIGHTS),
            freeze_backbone=True,
        ),
        OptimizerConfig(name="adamw", learning_rate=0.01, weight_decay=0.01),
        6,
    ),
}


def main() -> None:
    if not LABELLED.is_dir():
        raise SystemExit(f"{LABELLED}: not there")
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        connect()
        dataset = trashnet_dataset(LABELLED, Path(temporary))
        for place, (name, (model, optimizer, epochs)) in enumerate(RUNS.items()):
            output = Path(temporary) / f"model{place}"
            config = trashnet_config(
                dataset, output, model=model, optimizer=optimizer, max_epochs=epochs
            )
            began = time.perf_counter()
            with peak_memory() as peak:
                manifest = train.run(config)
            minutes = (time.perf_counter() - began) / 60
            (row,) = manifest.summary["on the validation split"]
            lines.append(
                f"| {name} | {row['accuracy']:.3f} | {row['macro_f1']:.3f} | {row['n']} | "
                f"{minutes:.1f} | {peak.mb:,.0f} |"
            )
    print("\n### train: trashnet_192\n")
    print("| run | accuracy | macro F1 | images | minutes | peak MB |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
