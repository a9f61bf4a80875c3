"""What `ctc create-dataset` would cost and lose, estimated on some images; nothing is written.

The images are read, decoded and resized as in the real run, by as many processes as this machine
has CPUs; no cluster is needed.
"""

import contextlib
import hashlib
import logging
import multiprocessing
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctc_ray.columns.event_runs import cut_by_events, run_starts
from ctc_ray.columns.factorize import factorize_to_list
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.console.progress import clock
from ctc_ray.errors import CtcError
from ctc_ray.images.resize import ShardImage
from ctc_ray.runs import machine
from ctc_ray.runs.executor import InProcess, Job
from ctc_ray.runs.finished_inventory import find_rows
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.unit_worker import UnitOutput
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import Failure
from ctc_ray.stages.create_dataset.plan import DatasetPlan, rows_by_split, whole_rows

logger = logging.getLogger(__name__)

Decode = Callable[[CreateDatasetConfig, pa.Table], list[ShardImage | Failure]]

_GB = 1e9
_IMAGES_PER_PROCESS = 8  # fewer measure the start more than the work
_WAIT_S = 60.0
# JPEGs one by one, as a column, as the file's bytes, and buffers that grow by doubling: a shard of
# 1,000 images of 41 KB took 446 MB, 200 of them for the process and decoding.
_COPIES_OF_A_SHARD = 6
_NAMES_SHOWN = 20


@dataclass(frozen=True)
class _Tried:
    """What one process found."""

    seconds: float
    cpu_s: float
    peak_bytes: int
    n_bytes: list[int]
    """Bytes of the JPEG of each image that did not fail."""
    failures: list[str | None]
    """Why each image failed; null if it did not."""


def check(
    config: CreateDatasetConfig, plan: DatasetPlan, inventory: Manifest, decode: Decode
) -> Manifest:
    """The estimate as a manifest that is not written; its failures are those of the sample.

    Args:
        decode: the images of some rows, as the real run makes them; a function of a module.

    Raises:
        CtcError: a process was killed, probably for its memory.
    """
    rows = _sampled(config, plan, inventory)
    n_cpus = machine.n_cpus()
    n_processes = max(1, min(n_cpus, rows.num_rows // _IMAGES_PER_PROCESS))
    logger.info("create-dataset: trying %d images in %d processes", rows.num_rows, n_processes)
    tried = _try(config, rows, decode, n_processes)
    failures: list[str | None] = [None] * rows.num_rows
    for k, share in enumerate(tried):
        failures[k::n_processes] = share.failures
    found = Counter(code for code in failures if code is not None)
    return Manifest(
        kind="check",
        config=config.result_fields(),
        rows_in=plan.rows.num_rows,
        rows_out=rows.num_rows,
        failures={code.value: found[code.value] for code in Failure if found[code.value]},
        classes=plan.classes,
        summary={
            **_cost(config, plan, rows, tried, n_cpus),
            **_expected(config, plan, rows, failures),
            "splits": _splits(config, plan),
            **plan.summary,
        },
    )


def _sampled(config: CreateDatasetConfig, plan: DatasetPlan, inventory: Manifest) -> pa.Table:
    """The sample's rows as a unit has them."""
    chosen = pa.array(sample_rows(plan, config.check or plan.rows.num_rows))
    few = replace(plan, rows=plan.rows.take(chosen), splits=plan.splits.take(chosen))
    inventory_rows = find_rows(config.inventory_uri)
    parts = (rows for _, rows in rows_by_split(few, few.events(is_by_hash=False)))
    return pa.concat_tables(
        whole_rows(p, inventory_rows, config.heads, inventory.meta) for p in parts
    )


def sample_rows(plan: DatasetPlan, n_images: int) -> npt.NDArray[np.int64]:
    """The rows of a sample that every split, and every part of it, gives its share of.

    The images of the splits, one split after the other, are cut into `n_images` ranges of one
    length; the hash of its first event says which image of a range is taken, so the same plan gives
    the same sample.
    The rows come in the order of the plan; all, if `n_images` is more.
    """
    code_N, _ = factorize_to_list(plan.splits)
    order_N = np.argsort(code_N, kind="stable").astype(np.int64)
    n_rows = len(order_N)
    if n_images >= n_rows:
        return np.arange(n_rows)
    edges = np.arange(n_images + 1, dtype=np.int64) * n_rows // n_images
    ids = plan.rows["capture_event_id"].take(pa.array(order_N[edges[:-1]])).to_pylist()
    hashes = (int(hashlib.sha256(str(event).encode()).hexdigest()[:13], 16) for event in ids)
    steps = [h % length for h, length in zip(hashes, np.diff(edges).tolist(), strict=True)]
    return np.sort(order_N[edges[:-1] + np.array(steps, np.int64)])


def _try(
    config: CreateDatasetConfig, rows: pa.Table, decode: Decode, n_processes: int
) -> list[_Tried]:
    """What each process found in its share: every n-th row."""
    context = multiprocessing.get_context("spawn")  # a fork of Arrow's threads may hang
    together = context.Barrier(n_processes)
    shares = [
        rows.take(pa.array(np.arange(k, rows.num_rows, n_processes))) for k in range(n_processes)
    ]
    try:
        with ProcessPoolExecutor(n_processes, context, _wait, (together,)) as pool:
            waiting = [pool.submit(_try_share, config, share, decode) for share in shares]
            return [result.result() for result in waiting]
    except BrokenProcessPool as error:
        raise CtcError(
            f"--check: one of {n_processes} processes was killed, probably for lack of memory; "
            "give the machine more, or lower --max-pixels"
        ) from error


def _wait(together: Any) -> None:
    """Begin when all processes have started: a process alone is faster than it will be."""
    with contextlib.suppress(threading.BrokenBarrierError):  # one is late: the others begin
        together.wait(_WAIT_S)


def _try_share(config: CreateDatasetConfig, rows: pa.Table, decode: Decode) -> _Tried:
    decode(config, rows.slice(0, 1))  # connections and codecs are there
    worker = _SampleWorker(config, rows, decode)
    sample = Unit(name="--check", plan_file="", index=0, n_rows=rows.num_rows)
    job = Job(config.output_uri, claim=None, make_worker=lambda _: worker)
    began, cpu_began = time.perf_counter(), time.process_time()
    for result in InProcess(n_threads=1).run([sample], job):
        if result.error:
            raise CtcError(result.error)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    images = worker.images
    return _Tried(
        seconds,
        cpu_s,
        _peak_bytes(),
        [len(image.jpeg) for image in images if isinstance(image, ShardImage)],
        [image.value if isinstance(image, Failure) else None for image in images],
    )


@dataclass(frozen=True)
class _SampleWorker:
    """A worker that keeps what it makes, and writes nothing."""

    config: CreateDatasetConfig
    rows: pa.Table
    decode: Decode
    images: list[ShardImage | Failure] = field(default_factory=list)

    def read(self, unit: Unit) -> pa.Table:
        return self.rows

    def answer(self, rows: pa.Table) -> pa.Table:
        self.images.extend(self.decode(self.config, rows))
        return rows

    def fail(self, rows: pa.Table, failure: Failure) -> pa.Table:
        self.images.extend([failure] * rows.num_rows)
        return rows

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        n_failed = sum(isinstance(image, Failure) for image in self.images)
        return UnitOutput({}, len(self.images), n_failed)


def _peak_bytes() -> int:
    """The most memory this process has held; Linux counts its parent's in `ru_maxrss`."""
    if sys.platform == "linux":
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _cost(
    config: CreateDatasetConfig,
    plan: DatasetPlan,
    rows: pa.Table,
    tried: Sequence[_Tried],
    n_cpus: int,
) -> dict[str, Any]:
    """Time, bytes and memory of the whole."""
    n_images = plan.rows.num_rows
    sizes = [n for share in tried for n in share.n_bytes]
    jpeg_bytes = sum(sizes) / rows.num_rows
    rate = sum(len(share.failures) / max(share.seconds, 1e-9) for share in tried)
    rate *= n_cpus / len(tried)
    fullest = max(tried, key=lambda share: share.peak_bytes)
    per_shard = min(config.images_per_unit, n_images) * jpeg_bytes * _COPIES_OF_A_SHARD
    per_task = max(0.0, fullest.peak_bytes - sum(fullest.n_bytes)) + per_shard
    hours = n_images / rate / 3600
    cpu_s = sum(share.cpu_s for share in tried)
    return {
        "images_per_s": _rounded(rate),
        "cpus": n_cpus,
        "cpu_ms_per_image": _rounded(1000 * cpu_s / rows.num_rows),
        "hours": _rounded(hours),
        "hours_are": f"{clock(3600 * hours)} for {n_images:,} images at that rate, of the "
        f"{n_cpus} CPUs of this machine as busy as now; Ray's start and the writing come on top",
        "output_gb": _rounded(n_images * (jpeg_bytes + _bytes_per_row(rows)) / _GB),
        "jpeg_kb_per_image": _rounded(jpeg_bytes / 1e3),
        "peak_memory_gb": _rounded(n_cpus * per_task / _GB),
        "peak_memory_is": f"{n_cpus} tasks of {per_task / _GB:.2f} GB: {per_shard / _GB:.2f} for "
        f"the JPEGs of a shard, {_COPIES_OF_A_SHARD} times, the rest as measured here in the "
        "largest process; not Ray itself, nor the plan",
    }


def _bytes_per_row(rows: pa.Table) -> float:
    """What a row takes in Parquet besides its JPEG; of many rows, so that no footer counts."""
    many = pa.concat_tables([rows] * max(1, 1000 // rows.num_rows))
    sink = pa.BufferOutputStream()
    pq.write_table(many, sink, compression="zstd")
    return float(sink.tell() / many.num_rows)


def _rounded(value: float) -> float:
    """Three digits: it is an estimate."""
    return float(f"{value:.3g}")


def _expected(
    config: CreateDatasetConfig, plan: DatasetPlan, rows: pa.Table, failures: list[str | None]
) -> dict[str, Any]:
    """Failures of the whole by code, and the first images that failed."""
    n_failed = sum(code is not None for code in failures)
    counts = Counter(code for code in failures if code is not None)
    share = n_failed / rows.num_rows
    n_images = plan.rows.num_rows
    failed = np.flatnonzero([code is not None for code in failures])[:_NAMES_SHOWN]
    named = rows.select(["image_uri", "capture_event_id"]).take(pa.array(failed)).to_pylist()
    return {
        "failure_share": _rounded(share),
        "would_stop_at_max_failure_fraction": share > config.max_failure_fraction,
        "failures_expected": [
            {
                "failure": code.value,
                "tried": counts[code.value],
                "share": _rounded(counts[code.value] / rows.num_rows),
                "expected": round(counts[code.value] / rows.num_rows * n_images),
            }
            for code in Failure
            if counts[code.value]
        ],
        "first_failed_images": [
            {
                "image_uri": row["image_uri"],
                "event": row["capture_event_id"],
                "failure": failures[index],
            }
            for index, row in zip(failed.tolist(), named, strict=True)
        ],
    }


def _splits(config: CreateDatasetConfig, plan: DatasetPlan) -> list[dict[str, Any]]:
    """Images, events and shards of each split."""
    order_N = pa.array(np.concatenate(list(plan.events().rows())))
    event_N, split_N = plan.rows["capture_event_id"].take(order_N), plan.splits.take(order_N)
    splits = []
    for name in sorted(pc.unique(plan.splits).to_pylist()):
        events = event_N.filter(pc.equal(split_N, name))
        splits.append(
            {
                "split": name,
                "images": len(events),
                "events": len(run_starts(events)),
                "shards": len(cut_by_events(events, config.images_per_unit)),
            }
        )
    return splits
