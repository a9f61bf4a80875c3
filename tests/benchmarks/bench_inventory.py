"""Rows without images: create-inventory, and create-dataset up to its first unit, at 10 million.

The csv is drawn: about 80 bytes a row, 3 images per event, one row per image, 2,000 locations. The
bound is pyarrow reading the same csv and writing it as Parquet. Each step runs in a fresh process;
time and CPU are taken around the work, peak memory is that of the whole process (getrusage), so
what is imported counts. The csv has just been written, so it lies in the page cache. The steps take
turns for several rounds, and the fastest of each is told: a virtual machine's speed changes by half
from minute to minute.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from measure import machine

_ROWS_AT_ONCE = 1_000_000
_SPECIES = ("blank", "zebra", "wildebeest", "gazelle", "elephant", "buffalo", "impala", "warthog")


def make(folder: Path, n_rows: int) -> Callable[[], int]:
    """Write the csv piece by piece; whole columns, so that 10 million rows take half a minute."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pacsv

    species = np.array(_SPECIES)

    def columns(rows: "np.ndarray") -> pa.Table:
        events = rows // 3
        locations = events // 500 % 2000
        seconds = (events * 60 + rows % 3).astype("timedelta64[s]")
        taken = pa.array(np.datetime64("2015-01-01T00:00:00") + seconds)
        pairs = list(zip(locations.tolist(), events.tolist(), rows.tolist(), strict=True))
        return pa.table(
            {
                "event": [f"S1_B{place:04d}_{event:07d}" for place, event, _ in pairs],
                "image": [f"S1/B{place:04d}/IMG_{row:08d}.JPG" for place, _, row in pairs],
                "species": species[events * 7919 % len(species)],
                "count": (events * 31 % 5).astype(str),
                "location": [f"B{place:04d}" for place, _, _ in pairs],
                "time": taken.cast(pa.timestamp("s")).cast(pa.string()),
            }
        )

    def work() -> int:
        options = pacsv.WriteOptions(quoting_style="none")
        schema = columns(np.arange(3)).schema
        with pacsv.CSVWriter(str(folder / "rows.csv"), schema, write_options=options) as writer:
            for start in range(0, n_rows, _ROWS_AT_ONCE):
                rows = np.arange(start, min(n_rows, start + _ROWS_AT_ONCE))
                writer.write_table(columns(rows))
        return n_rows

    return work


def bound(folder: Path, n_rows: int) -> Callable[[], int]:
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    def work() -> int:
        rows = pacsv.read_csv(str(folder / "rows.csv"))
        pq.write_table(rows, str(folder / "bound.parquet"))
        return int(rows.num_rows)

    return work


def inventory(folder: Path, n_rows: int) -> Callable[[], int]:
    from ctc_ray.config.inventory import CsvInventoryConfig
    from ctc_ray.stages.create_inventory import stage as create_inventory

    config = CsvInventoryConfig(
        source_uri=str(folder / "rows.csv"),
        output_uri=str(folder / "inventory"),
        event_column="event",
        image_columns=("image",),
        head_columns=("species", "count"),
        location_column="location",
        captured_at_column="time",
    )
    return lambda: create_inventory.run(config).rows_out


def plan(folder: Path, n_rows: int) -> Callable[[], int]:
    from ctc_ray.config.dataset import CreateDatasetConfig
    from ctc_ray.runs.executor import Job, UnitResult
    from ctc_ray.runs.units import Unit
    from ctc_ray.stages.create_dataset import stage as create_dataset

    config = CreateDatasetConfig(
        inventory_uri=str(folder / "inventory"),
        output_uri=str(folder / "dataset"),
        heads=("species",),
        max_failure_fraction=1.0,  # the csv names images that are not there
    )

    class PlannedError(Exception):
        """Planning is over: the first unit would begin now."""

    class NoUnits:
        def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
            raise PlannedError(sum(unit.n_rows for unit in units))

    def work() -> int:
        try:
            create_dataset.run(config, executor=NoUnits())
        except PlannedError as planned:
            return int(planned.args[0])
        return 0

    return work


STEPS: dict[str, tuple[str, Callable[[Path, int], Callable[[], int]]]] = {
    "make": ("drawing the csv", make),
    "bound": ("pyarrow: read_csv, write_table (the bound)", bound),
    "inventory": ("create-inventory csv", inventory),
    "plan": ("create-dataset, up to its first unit", plan),
}


def run_step(name: str, folder: Path, n_rows: int) -> dict[str, float]:
    """What this process takes for a step; imports are done before the clock starts."""
    work = STEPS[name][1](folder, n_rows)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    n_done = work()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"rows": n_done, "seconds": seconds, "cpu_s": cpu_s, "mb": after.ru_maxrss / 1024}


def measured(name: str, folder: Path, n_rows: int) -> dict[str, float] | str:
    """The result of a step in a fresh process, or why there is none."""
    print(f"bench: {STEPS[name][0]} …", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--rows", str(n_rows), "--step", name, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return f"ended with code {done.returncode}, see stderr"
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if result["rows"] != n_rows:
        return f"{result['rows']:,} rows instead of {n_rows:,}"
    return result


def faster(
    one: dict[str, float] | str | None, other: dict[str, float] | str
) -> dict[str, float] | str:
    """The faster of two results, with the larger of their memory; a failure is kept."""
    if one is None or isinstance(other, str):
        return other
    if isinstance(one, str):
        return one
    return min(one, other, key=lambda result: result["seconds"]) | {
        "mb": max(one["mb"], other["mb"])
    }


def together(found: dict[str, dict[str, float] | str]) -> dict[str, float] | None:
    """create-inventory and planning one after the other."""
    one, other = found.get("inventory"), found.get("plan")
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return None
    times = {key: one[key] + other[key] for key in ("seconds", "cpu_s")}
    return times | {"rows": one["rows"], "mb": max(one["mb"], other["mb"])}


def print_results(found: dict[str, dict[str, float] | str], n_rows: int, csv_bytes: int) -> None:
    print(f"\n### rows: {n_rows:,} of a csv\n")
    load = f"{csv_bytes / max(n_rows, 1):.0f} bytes a row, {csv_bytes / 1e6:,.0f} MB"
    print(f"{load}; {machine()}\n")
    print("| what | s | ratio | CPU s | rows/s | peak MB | ratio |")
    print("|---|---|---|---|---|---|---|")
    base = found.get("bound")
    results = {STEPS[name][0]: result for name, result in found.items()}
    if (both := together(found)) is not None:
        results["both, one after the other"] = both
    for what, result in results.items():
        if isinstance(result, str):
            print(f"| {what} | {result} | | | | | |")
            continue
        ratios = ("", "")
        if isinstance(base, dict):
            ratios = tuple(f"{result[key] / base[key]:.1f}" for key in ("seconds", "mb"))
        rate = result["rows"] / result["seconds"]
        print(
            f"| {what} | {result['seconds']:.1f} | {ratios[0]} | {result['cpu_s']:.1f} "
            f"| {rate:,.0f} | {result['mb']:,.0f} | {ratios[1]} |"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rows", type=int, default=10_000_000, help="rows of the csv, one an image"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each step is measured")
    parser.add_argument("--folder", type=Path, help="where to work; the default is temporary")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.step:
        name, folder = arguments.step
        print(json.dumps(run_step(name, Path(folder), arguments.rows)), flush=True)
        return
    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    found: dict[str, dict[str, float] | str] = {}
    csv_bytes = 0
    try:
        if isinstance(made := measured("make", folder, arguments.rows), str):
            raise SystemExit(f"bench: {STEPS['make'][0]}: {made}")
        csv_bytes = os.path.getsize(folder / "rows.csv")
        for _ in range(arguments.rounds):
            for made_of in ("inventory", "dataset"):
                shutil.rmtree(folder / made_of, ignore_errors=True)
            for name in ("bound", "inventory", "plan"):
                found[name] = faster(found.get(name), measured(name, folder, arguments.rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        print_results(found, arguments.rows, csv_bytes)
        print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes in all.", flush=True)


if __name__ == "__main__":
    main()
