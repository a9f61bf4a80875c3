"""What the driver of predict takes for millions of images: planning, counting, its own files.

The source makes its rows up, and no image is scored: the answers of one unit stand for those of all
others, as hard links. Everything else is the real driver. One image in a hundred is missing, events
have ten images.

    PYTHONPATH=tests python tests/benchmarks/bench_many_images.py [--millions 1 10 100]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from measure import machine, peak_memory

from ctc_ray.runs.executor import Job, UnitResult
from ctc_ray.runs.units import Unit

ROWS_PER_PART = 1 << 16  # as a row group of an inventory
IMAGES_PER_EVENT = 10
MOST_LINKS = 50_000  # file systems allow 65,000


def rows(start: int, stop: int) -> pa.Table:
    """Images `start` to `stop`."""
    from ctc_ray.columns.hashing import hash_text, image_ids
    from ctc_ray.schemas import conform, planned_schema

    numbers = np.arange(start, stop)
    event_N = numbers // IMAGES_PER_EVENT
    events = [f"cam{event % 1000:04d}-{event:09d}" for event in event_N]
    uris = [
        f"s3://season/cam{e % 1000:04d}/{n:010d}.JPG" for e, n in zip(event_N, numbers, strict=True)
    ]
    table = pa.table(
        {
            "image_id": image_ids(hash_text(pa.array(events)), hash_text(pa.array(uris))),
            "capture_event_id": events,
            "image_uri": uris,
            "image_index": pa.array(numbers % IMAGES_PER_EVENT, pa.int32()),
            "n_images": pa.array(np.full(len(numbers), IMAGES_PER_EVENT), pa.int32()),
            "captured_at": pa.array(numbers * 10**9, pa.timestamp("us")),
            "location_id": [f"site {event % 1000}" for event in event_N],
            "deployment_id": pa.nulls(len(numbers), pa.string()),
        }
    )
    return conform(table, planned_schema([], []), where="images")


class Linked:
    """Does one unit, and links the others' files to its files."""

    def __init__(self) -> None:
        self.planned_s = 0.0

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        from ctc_ray.files import storage
        from ctc_ray.predictions.scores import score_rows
        from ctc_ray.runs.units import read_unit
        from ctc_ray.stages.predict.sources import VERSION

        self.planned_s = time.perf_counter()
        worker = job.make_worker(1)
        labels = worker.network.labels  # type: ignore[attr-defined]  # a worker of predict has it
        planned = read_unit(job.output_uri, units[0])
        failed = [None if n % 100 else "missing" for n in range(planned.num_rows)]
        draw = np.random.default_rng(0)
        n_scored = failed.count(None)
        probs = {
            head: draw.dirichlet(np.ones(len(classes)), n_scored).astype(np.float32)
            for head, classes in labels.classes.items()
        }
        answers = score_rows(planned.append_column("failure", pa.array(failed)), labels, probs)
        versions = pa.array([f"{n:032x}" for n in range(planned.num_rows)])
        made = worker.output(units[0], answers.append_column(VERSION, versions))
        stem = Path(units[0].name).stem
        for number, unit in enumerate(units):
            if unit.n_rows != planned.num_rows:
                raise SystemExit(
                    f"{unit.name} has {unit.n_rows} rows, the first {planned.num_rows}"
                )
            for name, content in made.files.items():
                first = Path(job.output_uri) / name.replace(
                    stem, Path(units[number - number % MOST_LINKS].name).stem
                )
                own = Path(job.output_uri) / name.replace(stem, Path(unit.name).stem)
                if number % MOST_LINKS == 0:
                    storage.write_bytes(str(own), content)
                else:
                    os.link(first, own)
            yield UnitResult(made.n_rows, made.n_failed)


def predict(folder: Path, n_images: int) -> None:
    """The driver of a whole prediction; prints its seconds."""
    from ctc_ray.config.prediction import PredictConfig
    from ctc_ray.schemas import planned_schema
    from ctc_ray.stages.predict import sources, stage

    def read_parts() -> Iterator[sources.LabelledRows]:
        for start in range(0, n_images, ROWS_PER_PART):
            yield sources.LabelledRows(rows(start, min(n_images, start + ROWS_PER_PART)))

    made_up = sources.Source(planned_schema([], []), n_images, read_parts, lambda _: [])
    sources.read_source = lambda *_: made_up  # type: ignore[assignment]  # it takes the place
    sources.fingerprints = lambda *_: {}  # type: ignore[assignment]  # it takes the place
    executor = Linked()
    config = PredictConfig(
        bundle_uri=str(folder / "model"),
        output_uri=str(folder / "out"),
        inventory_uri=str(folder),
        max_failure_fraction=1,
        engine="torch",
    )
    began, cpu = time.perf_counter(), time.process_time()
    made = stage.run(config, executor=executor)
    assert made.rows_in == made.rows_out == n_images
    assert made.failures == {"missing": n_images // 100}
    took = time.perf_counter() - began
    print(executor.planned_s - began, took, time.process_time() - cpu)


def timed(folder: Path, n_images: int) -> tuple[list[float], float]:
    command = [sys.executable, __file__, "--run", str(n_images), "--folder", str(folder)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        peak_memory(process.pid) as peak,
    ):
        output, error = process.communicate()
    if process.returncode:
        raise SystemExit(error.decode()[-3000:])
    return [float(word) for word in output.split()], peak.mb


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--run", type=int)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.run:
        predict(asked.folder, asked.run)
        return
    from builders import untrained_bundle  # imports torch

    print(f"the driver of predict, units of 1,000 images; {machine()}\n")
    print("| million images | s to plan | s, all | CPU s per million | peak MB |")
    print("|---|---|---|---|---|")
    for millions in asked.millions:
        with tempfile.TemporaryDirectory() as name:
            untrained_bundle(Path(name) / "model")
            (planned_s, all_s, cpu_s), mb = timed(Path(name), int(millions * 1e6))
        seconds = f"{planned_s:.1f} | {all_s:.1f} | {cpu_s / millions:.1f}"
        print(f"| {millions:g} | {seconds} | {mb:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
