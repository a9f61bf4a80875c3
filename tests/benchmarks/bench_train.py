"""Honest accuracy on a CPU: trashnet_192, a fixed 80/20 split by the hash of the file name.

small_cnn from scratch at 64 px, and a frozen EfficientNet-Lite0 with ImageNet weights.
"""

import csv
import tempfile
import time
from hashlib import md5
from pathlib import Path

from measure import PHOTOS, peak_memory

from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.config.training import ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from ctc_ray.stages import create_dataset, create_inventory, runtime, train

ROOT = PHOTOS.parent / "labelled" / "trashnet_192"
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


def make_dataset(folder: Path) -> Path:
    with (folder / "trashnet.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "image", "class", "split"])
        for file in sorted(ROOT.glob("*/*.jpg")):
            share = int(md5(file.name.encode()).hexdigest()[:6], 16) / 0xFFFFFF
            split = "train" if share <= 0.8 else "val"
            writer.writerow([file.name, f"{file.parent.name}/{file.name}", file.parent.name, split])
    create_inventory.run(
        CsvInventoryConfig(
            source_uri=str(folder / "trashnet.csv"),
            output_uri=str(folder / "inventory"),
            event_column="id",
            image_columns=("image",),
            head_columns=("class",),
            meta_columns=("split",),
        )
    )
    create_dataset.run(
        CreateDatasetConfig(
            inventory_uri=str(folder / "inventory"),
            output_uri=str(folder / "dataset"),
            heads=("class",),
            image_root_uri=str(ROOT),
            split=SplitConfig(by="meta:split"),
        )
    )
    return folder / "dataset"


def main() -> None:
    if not ROOT.is_dir():
        raise SystemExit(f"{ROOT}: not there")
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        runtime.connect()
        dataset = make_dataset(Path(temporary))
        for place, (name, (model, optimizer, epochs)) in enumerate(RUNS.items()):
            config = TrainConfig(
                dataset_uri=str(dataset),
                output_uri=f"{temporary}/model{place}",
                heads=("class",),
                model=model,
                optimizer=optimizer,
                schedule=ScheduleConfig(name="cosine"),
                batch_size=64,
                max_epochs=epochs,
                early_stopping_patience=0,
            )
            began = time.perf_counter()
            with peak_memory() as peak:
                manifest = train.run(config)
            minutes = (time.perf_counter() - began) / 60
            (row,) = manifest.counts["on the validation split"]
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
