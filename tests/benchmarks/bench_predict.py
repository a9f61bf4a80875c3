"""predict with resnet18 at 224 px, beside a plain PyTorch loop with as many threads."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measure import parse_arguments, peak_memory, photographs, print_table, write_csv

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.images.resize import to_input
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.bundle import Bundle, Provenance, load_bundle, save_bundle
from ctc_ray.models.classifier import predict_probs
from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.cluster.connect import connect
from ctc_ray.stages.predict import stage as predict

BATCH = 32


def write_bundle(folder: Path) -> str:
    """Random weights: they cost the same."""
    labels = LabelSpace({"species": tuple("abc"), "count": tuple("123")})
    model = MultiHeadModel(make_backbone("resnet18", image_size=224), labels)
    provenance = Provenance(config={}, data_fingerprint="", metrics={}, n_training_images={})
    save_bundle(str(folder), Bundle(model, 224, False, provenance))
    Manifest(kind="bundle", config={}, classes=labels.to_json()).write(str(folder))
    return str(folder)


def plain(bundle_uri: str, paths: list[str]) -> None:
    bundle = load_bundle(bundle_uri)
    for start in range(0, len(paths), BATCH):
        images = [
            to_input(
                Path(path).read_bytes(),
                image_size=224,
                keep_aspect=False,
                max_pixels=10**8,
                truncated="fail",
            )
            for path in paths[start : start + BATCH]
        ]
        predict_probs(bundle, np.stack(images))


def stage(folder: Path, bundle_uri: str, csv_path: Path, name: str) -> float:
    config = PredictConfig(
        bundle_uri=bundle_uri,
        output_uri=str(folder / name),
        csv_uri=str(csv_path),
        event_column="event",
        image_columns=("image",),
        batch_size=BATCH,
        images_per_unit=200,
    )
    began = time.perf_counter()
    predict.run(config)
    return time.perf_counter() - began


def main() -> None:
    arguments = parse_arguments(1025)
    images = photographs(arguments.photos, arguments.images)
    n_threads = os.cpu_count() or 1
    torch.set_num_threads(n_threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle_uri = write_bundle(folder / "model")
        csv_path = write_csv(folder / "events.csv", images)
        plain(bundle_uri, images[: 2 * BATCH])
        with peak_memory() as plain_peak:
            began = time.perf_counter()
            plain(bundle_uri, images)
            plain_s = time.perf_counter() - began
        with peak_memory() as cold_peak:
            cold_s = stage(folder, bundle_uri, csv_path, "cold")
        connect()
        with peak_memory() as warm_peak:
            warm_s = stage(folder, bundle_uri, csv_path, "warm")
    base = len(images) / plain_s
    rows = [
        (f"plain PyTorch loop, {n_threads} threads", plain_s, plain_peak.mb, 0),
        ("predict, Ray running (its actors start anew)", warm_s, warm_peak.mb, base),
        ("predict, Ray's start included", cold_s, cold_peak.mb, base),
    ]
    print_table("predict: resnet18, 224 px, from the original photographs", rows, len(images))


if __name__ == "__main__":
    main()
