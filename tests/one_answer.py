"""How far answers for one photograph differ: as a file, from its shard, in an exported model."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image, ImageOps

import ctc_ray
from ctc_ray.config.dataset import ResizeConfig
from ctc_ray.config.prediction import ExportConfig
from ctc_ray.images.resize import ShardImage, to_shard_jpeg
from ctc_ray.stages import export

N_PHOTOS = 90

Probs = npt.NDArray[np.float32]


def photographs(folder: Path) -> list[Path]:
    """Up to `N_PHOTOS` JPEGs below the folder, of many sizes."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    return found[:: max(1, len(found) // N_PHOTOS)][:N_PHOTOS]


def shard_of(photo: Path, *, quality: int = ResizeConfig().quality) -> bytes:
    made = to_shard_jpeg(
        photo.read_bytes(), smallest_side=400, quality=quality, max_pixels=10**9, truncated="keep"
    )
    assert isinstance(made, ShardImage)
    return made.jpeg


def all_pixels(photo: Path) -> npt.NDArray[np.uint8]:
    with Image.open(photo) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def by_onnx(session: onnxruntime.InferenceSession, photo: Path) -> Probs:
    (probs,) = session.run(None, {"images": all_pixels(photo)[None]})
    return np.asarray(probs[0], np.float32)


def by_pillow(photo: Path, size: int) -> npt.NDArray[np.uint8]:
    """All pixels, squeezed to the input by Pillow."""
    whole = Image.fromarray(all_pixels(photo))
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR))


def differences(
    uri: str, photos: Sequence[Path], *, image_size: int, onnx_uri: str
) -> dict[str, tuple[npt.NDArray[np.float32], float]]:
    """Pair -> the largest difference of a probability per photograph, and how many classes agree.

    Args:
        uri: a bundle whose images are squeezed, with one head.
        onnx_uri: folder for the exported model.
    """
    export.run(ExportConfig(bundle_uri=uri, output_uri=onnx_uri, format="onnx", overwrite=True))
    session = onnxruntime.InferenceSession(Path(onnx_uri) / "model.onnx")
    bundle = ctc_ray.load_bundle(uri)
    (head,) = bundle.heads

    def asked(images: Sequence[object]) -> Probs:
        return np.asarray(bundle.predict(images)[head].probs)

    answers = {
        "photograph": asked(photos),
        "its shard": asked([shard_of(photo) for photo in photos]),
        "ONNX, all pixels": np.stack([by_onnx(session, photo) for photo in photos]),
    }
    pairs = {
        f"{one} / {other}": (a, b)
        for (one, a), (other, b) in itertools.combinations(answers.items(), 2)
    }
    pairs["the JPEG of the shard: quality 100 / 75"] = (
        asked([shard_of(photo, quality=100) for photo in photos]),
        answers["its shard"],
    )
    pairs["Pillow's resize of all pixels / ONNX"] = (
        asked([by_pillow(photo, image_size) for photo in photos]),
        answers["ONNX, all pixels"],
    )
    return {
        name: (np.abs(a - b).max(axis=1), float(np.mean(a.argmax(axis=1) == b.argmax(axis=1))))
        for name, (a, b) in pairs.items()
    }
