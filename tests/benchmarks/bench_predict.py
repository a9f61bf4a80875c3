"""predict with resnet18 at 224 px on real photographs, beside what else people run.

Each contender is a process of its own, timed from its start; it runs with n and with 2 n images, so
the rate without the start is n / (t(2 n) - t(n)). All have as many threads as the machine has CPUs.
The limit is what one CPU needs for decoding and for the network, times the CPUs.

    PYTHONPATH=tests python tests/benchmarks/bench_predict.py [--images 1200] [contender ...]
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measure import PHOTOS, machine, peak_memory, photographs, write_csv

from ctc_ray.config.choices import Engine

SIDE, BATCH = 224, 32
CPUS = os.cpu_count() or 1


def write_bundle(folder: Path) -> str:
    """Random weights: they cost the same."""
    from ctc_ray.labels import LabelSpace
    from ctc_ray.models.backbones import make_backbone
    from ctc_ray.models.bundle import Bundle, Provenance, save_bundle
    from ctc_ray.models.multi_head import MultiHeadModel
    from ctc_ray.runs.manifest import Manifest

    labels = LabelSpace({"species": tuple("abc"), "count": tuple("123")})
    model = MultiHeadModel(make_backbone("resnet18", image_size=SIDE), labels)
    provenance = Provenance(config={}, data_fingerprint="", metrics={}, n_training_images={})
    save_bundle(str(folder), Bundle(model, SIDE, False, provenance))
    Manifest(kind="bundle", config={}, classes=labels.to_json()).write(str(folder))
    return str(folder)


def decoded(path: str) -> np.ndarray:
    from ctc_ray.images.resize import to_input

    raw = Path(path).read_bytes()
    found = to_input(raw, image_size=SIDE, keep_aspect=False, max_pixels=10**8, truncated="fail")
    if isinstance(found, str):
        raise SystemExit(f"{path}: {found}")
    return found


def batches(paths: list[str]) -> Iterator[list[str]]:
    return (paths[start : start + BATCH] for start in range(0, len(paths), BATCH))


def loop(bundle_uri: str, paths: list[str]) -> None:
    """What a careful person writes: float32, channels last, a pool of threads that decode."""
    import torch

    from ctc_ray.models.bundle import load_bundle

    torch.set_num_threads(CPUS)
    model = load_bundle(bundle_uri).model
    with ThreadPoolExecutor(CPUS) as pool, torch.inference_mode():
        ahead: deque = deque()
        for batch in itertools.chain(batches(paths), [[], []]):
            ahead.append([pool.submit(decoded, path) for path in batch])
            if len(ahead) > 2 and (ready := ahead.popleft()):
                images = np.stack([future.result() for future in ready])
                model(torch.from_numpy(images).permute(0, 3, 1, 2))


def data_loader(bundle_uri: str, paths: list[str]) -> None:
    """The usual one: a DataLoader with torchvision."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision.datasets.folder import default_loader
    from torchvision.transforms import v2

    from ctc_ray.models.bundle import load_bundle

    transform = v2.Compose([v2.ToImage(), v2.Resize((SIDE, SIDE), antialias=True)])
    model = load_bundle(bundle_uri).model
    torch.set_num_threads(CPUS)

    class Images(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            made: torch.Tensor = transform(default_loader(paths[index]))
            return made

    loader = DataLoader(Images(), batch_size=BATCH, num_workers=CPUS)
    with torch.inference_mode():
        for batch in loader:
            model(batch)


def ray_recipe(bundle_uri: str, paths: list[str]) -> None:
    """As in Ray's own guide to batch inference."""
    import ray
    import torch

    from ctc_ray.models.bundle import load_bundle

    class Model:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            self.model = load_bundle(bundle_uri).model

        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            with torch.inference_mode():
                found = self.model(torch.from_numpy(batch["image"]).permute(0, 3, 1, 2))
            return {"top": found["species"].argmax(1).numpy()}

    ray.init(log_to_driver=False, logging_level="ERROR")
    images = ray.data.read_images(paths, size=(SIDE, SIDE), mode="RGB")
    found = images.map_batches(Model, batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=1))
    assert found.count() == len(paths)


def daft_pipeline(bundle_uri: str, paths: list[str]) -> None:
    """Daft reads, decodes and resizes; a class holds the model."""
    import daft  # `pip install daft`: no part of this project's environment
    import torch
    from daft.functions import decode_image, download, resize

    from ctc_ray.models.bundle import load_bundle

    class Model:
        def __init__(self) -> None:
            torch.set_num_threads(CPUS)
            self.model = load_bundle(bundle_uri).model

        @daft.method.batch(return_dtype=daft.DataType.int64(), batch_size=BATCH)
        def top(self, images: daft.Series) -> list[int]:
            batch = np.stack(images.to_pylist())
            with torch.inference_mode():
                found = self.model(torch.from_numpy(batch).permute(0, 3, 1, 2))
            return list(found["species"].argmax(1).tolist())

    daft.context.set_execution_config(default_morsel_size=BATCH)
    model = daft.cls(Model, max_concurrency=1)()
    path = daft.col("path")
    images = resize(decode_image(download(path), mode="RGB"), SIDE, SIDE)
    answers = daft.from_pydict({"path": paths}).select(model.top(images).alias("top"))
    assert len(answers.to_pydict()["top"]) == len(paths)


def timm_script(_: str, paths: list[str]) -> None:
    """timm's own inference.py, named by the environment variable TIMM_INFERENCE."""
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):
            (Path(folder) / f"{number:06d}.jpg").symlink_to(path)
        command = [sys.executable, os.environ["TIMM_INFERENCE"], "--data-dir", folder]
        command += ["--model", "resnet18", "--num-classes", "3", "--img-size", str(SIDE)]
        command += ["--device", "cpu", "--channels-last", "-b", str(BATCH), "-j", str(CPUS)]
        command += ["--results-dir", folder, "--no-console-results"]
        subprocess.run(command, check=True, capture_output=True)
        with open(next(Path(folder).glob("*.csv"))) as file:
            assert len(file.readlines()) == 1 + len(paths)


def ctc_predict(bundle_uri: str, paths: list[str], engine: Engine = "auto") -> None:
    from ctc_ray.config.prediction import PredictConfig
    from ctc_ray.stages.predict import stage as predict

    with tempfile.TemporaryDirectory() as folder:
        csv_path = write_csv(Path(folder) / "events.csv", paths)
        config = PredictConfig(
            bundle_uri=bundle_uri,
            output_uri=f"{folder}/out",
            csv_uri=str(csv_path),
            event_column="event",
            image_columns=("image",),
            engine=engine,
        )
        assert predict.run(config).rows_out == len(paths)


CONTENDERS: dict[str, Callable[[str, list[str]], None]] = {
    "plain loop": loop,
    "ctc predict": ctc_predict,
    "ctc predict --engine torch": lambda uri, paths: ctc_predict(uri, paths, "torch"),
    "torch DataLoader, torchvision": data_loader,
    "ray.data.read_images + map_batches": ray_recipe,
    "daft": daft_pipeline,
    "timm's inference.py": timm_script,
}


def ms_of(function: Callable[[], object], n_images: int) -> float:
    """CPU per image, the least of three."""
    found = []
    for _ in range(3):
        began = time.process_time()
        function()
        found.append((time.process_time() - began) / n_images * 1000)
    return min(found)


def limit(bundle_uri: str, paths: list[str]) -> tuple[float, float]:
    """Milliseconds of one CPU for decoding, and for the network."""
    import torch

    from ctc_ray.models.bundle import load_bundle
    from ctc_ray.models.exporters import export_onnx_at_own_size
    from ctc_ray.models.onnx_scorer import OnnxScorer

    torch.set_num_threads(1)
    distinct = list(dict.fromkeys(paths))  # some are several times as large as others
    images = np.stack([decoded(path) for path in distinct[:BATCH]])
    bundle = load_bundle(bundle_uri)
    scorer = OnnxScorer(export_onnx_at_own_size(bundle), bundle.label_space)
    decode_ms = ms_of(lambda: [decoded(path) for path in distinct], len(distinct))
    return decode_ms, ms_of(lambda: scorer.predict_probs(images), len(images))


def timed(name: str, bundle_uri: str, n_images: int) -> tuple[float, float]:
    """Seconds from the start of a process to its end, and the largest memory in MB."""
    command = [sys.executable, __file__, "--run", name, "--bundle", bundle_uri]
    began = time.perf_counter()
    with (
        subprocess.Popen(
            [*command, "--images", str(n_images)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process,
        peak_memory(process.pid) as peak,
    ):
        _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name}: {error.decode()[-3000:]}")
    return time.perf_counter() - began, peak.mb


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--run")
    parser.add_argument("--bundle")
    parser.add_argument("contenders", nargs="*", choices=[*CONTENDERS, []], default=[])
    asked = parser.parse_args()
    paths = photographs(PHOTOS, asked.images)
    if asked.run:
        CONTENDERS[asked.run](asked.bundle, paths)
        return
    from ctc_ray.stages.predict.engine import MANY_IMAGES  # contenders do not wait for it

    if asked.images < MANY_IMAGES:
        parser.error(f"--images: {MANY_IMAGES} or more, so that both runs have the same engine")
    with tempfile.TemporaryDirectory() as folder:
        bundle_uri = write_bundle(Path(folder) / "model")
        decode_ms, network_ms = limit(bundle_uri, paths)
        most = 1000 * CPUS / (decode_ms + network_ms)
        print(f"resnet18, {SIDE} px, {CPUS} threads; {machine()}\n")
        print(
            f"limit: {decode_ms:.1f} ms to decode + {network_ms:.1f} ms for the network (ONNX "
            f"Runtime) on {CPUS} CPUs: {most:.1f} images/s\n"
        )
        n = asked.images
        print(
            f"| what | {n} images, s | images/s | {2 * n} images, s | images/s without the start ",
            end="",
        )
        print("| of the limit | peak MB |\n|---|---|---|---|---|---|---|", flush=True)
        for name in asked.contenders or CONTENDERS:
            once_s, _ = timed(name, bundle_uri, n)
            twice_s, mb = timed(name, bundle_uri, 2 * n)
            rate = n / (twice_s - once_s)
            print(
                f"| {name} | {once_s:.1f} | {n / once_s:.1f} | {twice_s:.1f} | {rate:.1f} | "
                f"{rate / most:.2f} | {mb:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
