"""How far the answers of one model for one photograph differ: as a file, from its shard, in ONNX.

Trains heads on a frozen tf_efficientnet_lite0 with the real photographs of trashnet, then asks the
model for photographs of many sizes: `ctc predict` on the file, on the JPEG that a shard of 400
pixels holds, and the exported ONNX model fed with all pixels that Pillow decodes. Printed are the
median and the largest difference of a probability, per pair. A shard is a JPEG of a smaller image,
so its pair contains what is lost by that.

    python tests/benchmarks/bench_one_answer.py
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from builders import trashnet_config, trashnet_dataset
from PIL import Image, ImageOps

import ctc_ray
from ctc_ray.config.prediction import ExportConfig
from ctc_ray.config.training import ModelConfig, OptimizerConfig
from ctc_ray.images.resize import ShardImage, to_shard_jpeg
from ctc_ray.stages import export
from ctc_ray.stages.train import stage as train

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BACKBONE = "tf_efficientnet_lite0"
N_PHOTOS = 90

Probs = npt.NDArray[np.float32]


def trained(folder: Path) -> Path:
    (folder / "trashnet").mkdir()
    dataset = trashnet_dataset(DATA / "labelled", folder / "trashnet")
    weights = str(DATA / "backbones" / f"{BACKBONE}.safetensors")
    model = ModelConfig(backbone=BACKBONE, image_size=160, pretrained=weights, freeze_backbone=True)
    optimizer = OptimizerConfig(name="adamw", learning_rate=0.01, weight_decay=0.01)
    manifest = train.run(
        trashnet_config(dataset, folder / "model", model=model, optimizer=optimizer, max_epochs=3)
    )
    print("validation:", manifest.summary["on the validation split"])
    return folder / "model"


def photographs() -> list[Path]:
    found = sorted(p for p in (DATA / "photos").rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    return found[:: max(1, len(found) // N_PHOTOS)][:N_PHOTOS]


def shard_of(photo: Path) -> bytes:
    made = to_shard_jpeg(
        photo.read_bytes(), smallest_side=400, quality=90, max_pixels=10**9, truncated="keep"
    )
    assert isinstance(made, ShardImage)
    return made.jpeg


def by_onnx(session: onnxruntime.InferenceSession, photo: Path) -> Probs:
    with Image.open(photo) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    (probs,) = session.run(None, {"images": pixels[None]})
    return np.asarray(probs[0], np.float32)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri = trained(folder)
        config = ExportConfig(bundle_uri=str(uri), output_uri=str(folder / "onnx"), format="onnx")
        export.run(config)
        session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
        bundle = ctc_ray.load_bundle(uri)
        (head,) = bundle.heads
        photos = photographs()
        answers = {
            "photograph": bundle.predict(photos)[head].probs,
            "its shard": bundle.predict([shard_of(photo) for photo in photos])[head].probs,
            "ONNX, all pixels": np.stack([by_onnx(session, photo) for photo in photos]),
        }
    sizes = {Image.open(photo).size for photo in photos}
    print(f"{len(photos)} photographs of {len(sizes)} sizes, {BACKBONE}, input of 160 pixels")
    print(f"{'pair':<36}{'median':>9}{'90 %':>9}{'largest':>9}{'same class':>12}")
    for (one, a), (other, b) in itertools.combinations(answers.items(), 2):
        far = np.abs(a - b).max(axis=1)
        same = np.mean(a.argmax(axis=1) == b.argmax(axis=1))
        print(f"{one + ' / ' + other:<36}{np.median(far):>9.5f}{np.quantile(far, 0.9):>9.5f}"
              f"{far.max():>9.5f}{same:>12.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
