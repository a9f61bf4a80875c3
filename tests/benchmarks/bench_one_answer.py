"""How far the answers of one model for one photograph differ: as a file, from its shard, in ONNX.

Trains heads on a frozen tf_efficientnet_lite0 with the real photographs of trashnet, then asks the
model for photographs of many sizes: `ctc predict` on the file, on the JPEG that a shard of 400
pixels holds, and the exported ONNX model fed with all pixels that Pillow decodes. Printed are the
median and the largest difference of a probability, per pair. A shard is a JPEG of a smaller image,
so its pairs contain what is lost by that.

    python tests/benchmarks/bench_one_answer.py [FOLDER that keeps the model for the next time]
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np
from builders import trashnet_config, trashnet_dataset
from measure import machine
from one_answer import differences, photographs
from PIL import Image

from ctc_ray.config.model import ModelConfig
from ctc_ray.config.optimization import OptimizerConfig
from ctc_ray.stages.train import stage as train

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BACKBONE, SIZE = "tf_efficientnet_lite0", 160


def trained(folder: Path) -> Path:
    (folder / "trashnet").mkdir()
    dataset = trashnet_dataset(DATA / "labelled", folder / "trashnet")
    weights = str(DATA / "backbones" / f"{BACKBONE}.safetensors")
    model = ModelConfig(
        backbone=BACKBONE, image_size=SIZE, pretrained=weights, freeze_backbone=True
    )
    optimizer = OptimizerConfig(
        name="adamw", learning_rate=0.01, backbone_rate=1.0, weight_decay=0.01
    )
    manifest = train.run(
        trashnet_config(dataset, folder / "model", model=model, optimizer=optimizer, max_epochs=3)
    )
    print("validation:", manifest.summary["on the validation split"])
    return folder / "model"


def main() -> None:
    kept = contextlib.nullcontext(sys.argv[1]) if sys.argv[1:] else tempfile.TemporaryDirectory()
    photos = photographs(DATA / "photos")
    with kept as name:
        folder = Path(name)
        uri = folder / "model" if (folder / "model").exists() else trained(folder)
        found = differences(str(uri), photos, image_size=SIZE, onnx_uri=str(folder / "onnx"))
    sizes = {Image.open(photo).size for photo in photos}
    print(f"{len(photos)} photographs of {len(sizes)} sizes, {BACKBONE}, input of {SIZE} pixels;")
    print(f"{machine()}\n")
    print("| pair | median | 90 % | largest | same class |\n|---|---|---|---|---|")
    for name, (far, same) in found.items():
        values = (np.median(far), np.quantile(far, 0.9), far.max(), same)
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |")


if __name__ == "__main__":
    main()
