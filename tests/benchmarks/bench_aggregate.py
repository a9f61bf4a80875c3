"""`ctc aggregate` beside DuckDB: drawn predictions of one head, Parquet in and Parquet out.

`bench_aggregate.py --rows 10000000`. Every run is a process of its own with as many threads as
there are CPUs. "Moved": the images of an event lie in any of the files, and events are made by
location and day; on one machine in files of the command's own, or by Ray Data's groupby (`--ray`).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import machine, peak_memory

from ctc_ray.columns.hashing import image_ids
from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.files import parquet
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.scores import score_rows
from ctc_ray.runs.machine import limit_arrow_threads, n_cpus
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.aggregate import stage as aggregate

LENGTHS, SHARES = (1, 2, 3, 5, 10), (0.17, 0.1, 0.55, 0.1, 0.08)  # images per event: 3.32
CLASSES = tuple(f"class {index:02d}" for index in range(50))
LABELS = LabelSpace({"species": CLASSES})
N_LOCATIONS, N_POOL = 3000, 1 << 18
WAYS = ("ctc aggregate", "DuckDB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000_000, help="images")
    parser.add_argument("--rows-per-file", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ray", action="store_true", help="move images by Ray Data, too")
    parser.add_argument("--folder", type=Path, help="for the data; default: a temporary one")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(*arguments.one)
        return
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        compare(arguments, folder)
    finally:
        shutil.rmtree(folder)


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Draw the data, run each way in turns, and print the table."""
    print("\n### aggregate: predictions per event\n")
    print(f"{arguments.rows:,} images x {len(CLASSES)} classes in files of about "
          f"{arguments.rows_per_file:,}; {machine()}, duckdb {duckdb.__version__}\n")  # fmt: skip
    print("| what | s | CPU s | peak MB | events | max difference |")
    print("|---|---|---|---|---|---|")
    for kind in ("whole", "moved"):
        predictions = folder / kind
        draw(predictions, arguments.rows, arguments.rows_per_file, is_moved=kind == "moved")
        ways = [
            *WAYS,
            *(("ctc aggregate by Ray Data",) if arguments.ray and kind == "moved" else ()),
        ]
        measured: dict[str, list[Measured]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way in ways:
                output = folder / f"{kind}-{way}"
                shutil.rmtree(output, ignore_errors=True)
                measured[way].append(measure(way, kind, predictions, output))
        n_events, difference = largest_difference(*(folder / f"{kind}-{way}" for way in WAYS))
        for way, runs in measured.items():
            best = min(runs, key=lambda run: run.seconds)
            cells = [f"{kind}, {way}", f"{best.seconds:.1f}", f"{best.cpu_s:.1f}"]
            cells += [f"{best.peak_mb:,.0f}", f"{n_events:,}"]
            cells += [f"{difference:.1g}" if way == WAYS[0] else ""]
            print(f"| {' | '.join(cells)} |", flush=True)
        shutil.rmtree(predictions)


# -- data ------------------------------------------------------------------------------------------


def draw(folder: Path, n_rows: int, rows_per_file: int, *, is_moved: bool) -> None:
    """Predictions as `ctc predict` writes them; moved: the images of an event in any order."""
    rng = np.random.default_rng(1)
    lengths = rng.choice(LENGTHS, size=int(n_rows / 3.2) + 10, p=SHARES)
    event_N = np.repeat(np.arange(len(lengths)), lengths)[:n_rows]
    if is_moved:
        event_N = rng.permutation(event_N)
    odds = np.exp(3 * rng.standard_normal((N_POOL, len(CLASSES)), np.float32))
    pool = odds / odds.sum(axis=1, keepdims=True)
    for number, rows in enumerate(cut(event_N, rows_per_file, is_moved=is_moved)):
        first = int(rng.integers(N_POOL))  # no row of the pool twice in a file
        probs = pool[(first + 12_345 * np.arange(len(event_N[rows]))) % N_POOL]
        table = prediction_rows(event_N[rows], rows.start, probs, is_moved=is_moved)
        uri = str(folder / "images" / f"part-{number:05d}.parquet")
        parquet.write_table(uri, table, encodings=parquet.float_list_encodings(table.schema))
    (folder / "events").mkdir()
    Manifest(
        kind="predictions", config={}, rows_in=n_rows, rows_out=n_rows, classes=LABELS.to_json()
    ).write(str(folder))


def cut(event_N: np.ndarray, rows_per_file: int, *, is_moved: bool) -> Iterator[slice]:
    start = 0
    while start < len(event_N):
        stop = min(start + rows_per_file, len(event_N))
        while not is_moved and stop < len(event_N) and event_N[stop] == event_N[stop - 1]:
            stop += 1
        yield slice(start, stop)
        start = stop


def prediction_rows(
    event_N: np.ndarray, first: int, probs: np.ndarray, *, is_moved: bool
) -> pa.Table:
    n_rows = len(event_N)
    own_N = np.arange(first, first + n_rows) if is_moved else event_N
    hashes = np.arange(first, first + n_rows).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    ids = image_ids(own_N.astype(np.uint64) * np.uint64(0xC6A4A7935BD1E995), hashes)
    failed = probs[:, 0] < 1e-6
    day_us, second_us = 86_400_000_000, 1_000_000
    times = event_N // N_LOCATIONS * day_us + np.arange(n_rows) % 86_400 * second_us
    places = pa.array([f"site {i:04d}" for i in range(N_LOCATIONS)])
    rows = pa.table(
        {
            "image_id": ids,
            "image_uri": pa.array([f"season 1/IMG_{i:09d}.JPG" for i in hashes]),
            "capture_event_id": pa.compute.utf8_slice_codeunits(ids, 0, 16),
            "image_index": pa.array(np.zeros(n_rows, np.int32)),
            "n_images": pa.array(np.ones(n_rows, np.int32)),
            "location_id": places.take(pa.array(event_N % N_LOCATIONS)),
            "deployment_id": pa.nulls(n_rows, pa.string()),
            "captured_at": pa.array(times, pa.timestamp("us")),
            "failure": pa.array(np.where(failed, "missing", None), pa.string()),
        }
    )
    return score_rows(rows, LABELS, {"species": probs[~failed]})


# -- one run ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What a process took."""

    seconds: float
    cpu_s: float
    peak_mb: float


def measure(way: str, kind: str, predictions: Path, output: Path) -> Measured:
    command = [sys.executable, __file__, "--one", way, kind, str(predictions), str(output)]
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    with peak_memory(process.pid) as peak:
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{way} failed: {' '.join(command)}")
    return Measured(time.monotonic() - began, usage.ru_utime + usage.ru_stime, peak.mb)


def run_one(way: str, kind: str, predictions: str, output: str) -> None:
    if way == "DuckDB":
        with_duckdb(kind, predictions, output)
        return
    limit_arrow_threads()
    if way != WAYS[0]:
        aggregate.is_on_cluster = lambda: True
    by = ("location", "day") if kind == "moved" else ()
    aggregate.run(AggregateConfig(predictions_uri=predictions, output_uri=output, by=by))


def with_duckdb(kind: str, predictions: str, output: str) -> None:
    """Write the same columns except margin_<head>.

    The probabilities of failed images are null, and avg() ignores nulls.
    """
    os.makedirs(output)
    event = "capture_event_id"
    if kind == "moved":
        event = "location_id || '|' || strftime(captured_at, '%Y-%m-%d')"
    means = ", ".join(f"avg(probs_species[{i + 1}])" for i in range(len(CLASSES)))
    duckdb.sql(f"SET threads = {n_cpus()}")
    duckdb.sql("SET preserve_insertion_order = false")
    duckdb.sql(f"""
        COPY (
            SELECT * EXCLUDE probs,
                {list(CLASSES)}[list_position(probs, list_max(probs))] AS pred_species,
                list_max(probs) AS score_species, probs AS probs_species
            FROM (
                SELECT {event} AS capture_event_id, count(*) AS n_images,
                    count(failure) AS n_failed, first(location_id) AS location_id,
                    first(deployment_id) AS deployment_id, min(captured_at) AS captured_at,
                    CASE WHEN count(probs_species) > 0 THEN [{means}]::FLOAT[] END AS probs
                FROM read_parquet('{predictions}/images/*.parquet') GROUP BY 1
            )
        ) TO '{output}/events.parquet' (FORMAT parquet, COMPRESSION zstd)
    """)


def largest_difference(ours: Path, theirs: Path) -> tuple[int, float]:
    """Number of events, and the largest difference of a probability; all counts must be equal."""
    columns = ["capture_event_id", "n_images", "n_failed", "probs_species"]
    tables = [
        pq.read_table(path, columns=columns).sort_by("capture_event_id").combine_chunks()
        for path in (ours / "events", theirs / "events.parquet")
    ]
    for name in columns[:3]:
        one, other = (table[name].cast(pa.string()) for table in tables)
        if not one.equals(other):
            raise SystemExit(f"{name} differs")
    one, other = (
        table["probs_species"].combine_chunks().flatten().to_numpy().astype(np.float64)
        for table in tables
    )
    return tables[0].num_rows, float(np.abs(one - other).max())


if __name__ == "__main__":
    main()
