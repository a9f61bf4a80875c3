"""Whether training and evaluation see the same pixels: accuracy beside that of a plain loop.

`ctc train` and a plain loop with the same network, rate, schedule, batches and epochs learn the
real photographs of trashnet from shards of 64 pixels; both mirror half of the images. The plain
loop holds all images in memory, decoded whole and resized by Pillow, and shuffles them as a whole.
The same trained model is also asked with pixels as training samples them, with a geometry that
changes next to nothing: the answers must be those of the pixels of evaluation.

    python tests/benchmarks/bench_training_path.py [--seeds 3] [--epochs 12]
"""

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from builders import trashnet_config, trashnet_dataset
from measure import machine
from PIL import Image
from torch import Tensor, nn

from ctc_ray.config.dataset import CreateDatasetConfig, ResizeConfig, SplitConfig
from ctc_ray.config.model import ModelConfig
from ctc_ray.config.optimization import OptimizerConfig
from ctc_ray.config.training import AugmentConfig
from ctc_ray.files import parquet
from ctc_ray.images.resize import to_input
from ctc_ray.images.sampling import Geometry
from ctc_ray.models.bundle import Bundle, load_bundle
from ctc_ray.models.small_cnn import SmallCnn
from ctc_ray.runs.executor import InProcess
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.train import stage as train

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SIZE, BATCH, RATE = 64, 64, 0.003
FLIPS = AugmentConfig(zoom=0, crop=0, rotate=0, colour="none")
OPTIMIZER = OptimizerConfig(name="adamw", learning_rate=RATE, backbone_rate=1.0, weight_decay=0.01)


def small_shards(folder: Path) -> Path:
    """trashnet with shards of 64 pixels."""
    (folder / "trashnet").mkdir()
    made = trashnet_dataset(DATA / "labelled", folder / "trashnet")
    config = CreateDatasetConfig(
        inventory_uri=str(folder / "trashnet" / "inventory"),
        output_uri=str(made.with_name("small")),
        heads=("class",),
        image_root_uri=str(DATA / "labelled" / "trashnet_192"),
        split=SplitConfig(by="meta:split"),
        resize=ResizeConfig(smallest_side=SIZE),
    )
    create_dataset.run(config, executor=InProcess())
    return made.with_name("small")


class Split:
    """The JPEGs and classes of a split."""

    def __init__(self, dataset: Path, name: str) -> None:
        rows = parquet.read_folder(str(dataset / f"split={name}"), ["jpeg", "label_class"])
        names = rows["label_class"].to_pylist()
        self.classes = sorted(set(names))
        self.jpegs: list[bytes] = rows["jpeg"].to_pylist()
        self.labels = torch.tensor([self.classes.index(name) for name in names])

    def pillow_pixels(self) -> Tensor:
        """uint8 (N, C, S, S): decoded whole, squeezed by Pillow."""
        pixels = [
            np.asarray(
                Image.open(io.BytesIO(raw)).convert("RGB").resize((SIZE, SIZE), Image.BILINEAR)
            )
            for raw in self.jpegs
        ]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def own_pixels(self, geometry: Geometry) -> Tensor:
        """uint8 (N, C, S, S), sampled as `ctc train` samples."""
        pixels = [
            to_input(
                raw, image_size=SIZE, keep_aspect=False, max_pixels=10**9, truncated="fail",
                geometry=geometry,
            )
            for raw in self.jpegs
        ]  # fmt: skip
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


def standardised(pixels: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (pixels / 255 - mean) / std


def plain_loop(train_split: Split, val_split: Split, *, seed: int, n_epochs: int) -> float:
    """Accuracy on the validation split after the last epoch."""
    torch.manual_seed(seed)
    network = nn.Sequential(SmallCnn(), nn.Linear(SmallCnn.num_features, len(val_split.classes)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_epochs)
    pixels, labels = train_split.pillow_pixels(), train_split.labels
    for _ in range(n_epochs):
        network.train()
        for batch in torch.randperm(len(labels)).split(BATCH):
            flips = torch.rand(len(batch), 1, 1, 1) < 0.5
            images = torch.where(flips, pixels[batch].flip(3), pixels[batch])
            loss = nn.functional.cross_entropy(network(standardised(images)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        found = network(standardised(val_split.pillow_pixels())).argmax(dim=1)
    return float((found == val_split.labels).float().mean())


def own_training(
    dataset: Path, output: Path, val_split: Split, *, seed: int, n_epochs: int
) -> list[float]:
    """Accuracy after the last epoch; of the model that is kept, from pixels of evaluation and of
    training."""
    config = trashnet_config(
        dataset, output, model=ModelConfig(backbone="small_cnn", image_size=SIZE),
        optimizer=OPTIMIZER, max_epochs=n_epochs,
    ).replaced(augment=FLIPS, seed=seed)  # fmt: skip
    train.run(config)
    history = (output / "history.csv").read_text().splitlines()
    last = dict(zip(history[0].split(","), history[-1].split(","), strict=True))
    bundle = load_bundle(str(output))
    return [
        float(last["val_accuracy_class"]),
        *(
            accuracy(bundle, val_split, val_split.own_pixels(g))
            for g in (Geometry(), Geometry(angle=0.01))
        ),
    ]


def accuracy(bundle: Bundle, split: Split, pixels: Tensor) -> float:
    model = bundle.model.eval()
    with torch.inference_mode():
        logits: Sequence[Tensor] = [model(part)["class"] for part in pixels.split(256)]
    return float((torch.cat(list(logits)).argmax(dim=1) == split.labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        dataset = small_shards(Path(name))
        train_split, val_split = Split(dataset, "train"), Split(dataset, "val")
        for seed in range(asked.seeds):
            own = own_training(
                dataset, Path(name) / f"model{seed}", val_split, seed=seed, n_epochs=asked.epochs
            )
            rows.append(
                [plain_loop(train_split, val_split, seed=seed, n_epochs=asked.epochs), *own]
            )
            print(f"seed {seed}:", " ".join(f"{value:.3f}" for value in rows[-1]), flush=True)
    print(
        f"trashnet, {len(train_split.labels):,} images to learn, {len(val_split.labels)} to "
        f"answer; shards and input of {SIZE} pixels, small_cnn, {asked.epochs} epochs; {machine()}"
    )
    print(
        "\n| seed | plain loop | ctc train | its model, evaluation's pixels | training's pixels |"
    )
    print("|---|---|---|---|---|")
    for seed, row in [*enumerate(rows), ("mean", np.mean(rows, axis=0))]:
        print(f"| {seed} | " + " | ".join(f"{value:.3f}" for value in row) + " |")


if __name__ == "__main__":
    main()
