"""When a job is so small that this process finishes it before Ray has started.

    python bench_small_jobs.py [--images N] [--units 1 2 3 4 6 8]

create-dataset of 1, 2, … units, each run in a fresh process: by this process, by a Ray that must
start first, and one photograph through `ctc predict`. `FEW_UNITS` of the module
stages/cluster/in_process_or_ray is the largest number of units for which the process alone is not
slower.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import PHOTOS, machine, peak_memory, photographs, write_csv

_RUN = """
import sys, time
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.stages.create_dataset import stage
name, inventory, output, per_unit = sys.argv[1:]
if name == "here":
    from ctc_ray.runs.executor import InProcess as Executor
else:
    from ctc_ray.stages.cluster.executor import RayExecutor as Executor
config = CreateDatasetConfig(
    inventory_uri=inventory,
    output_uri=output,
    heads=("species",),
    split={"by": "event", "fractions": {"train": 1}},
    images_per_unit=int(per_unit),
)
print(stage.run(config, executor=Executor()).rows_out)
"""


def timed(command: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MB of a process and all below it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        with peak_memory(run.pid) as peak:
            code = run.wait()
        seconds = time.perf_counter() - began
    if code:
        raise SystemExit(f"bench: ended with {code}: {command}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu_s, peak.mb


def inventory_of(folder: Path, images: list[str]) -> Path:
    csv_path = write_csv(folder / f"{len(images)}.csv", images)
    out = folder / f"inventory-{len(images)}"
    columns = ["--event-column", "event", "--image-columns", "image", "--head-columns", "species"]
    uris = ["--source-uri", str(csv_path), "--output-uri", str(out)]
    command = [sys.executable, "-m", "ctc_ray", "create-inventory", "csv", *uris, *columns]
    subprocess.run(command, check=True, capture_output=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="photographs of a unit")
    parser.add_argument("--units", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8])
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--bundle", help="also predict one photograph with this model")
    arguments = parser.parse_args()
    print(f"\n### small jobs\n\n{arguments.images:,} photographs per unit; {machine()}\n")
    print("| units | this process, s | CPU s | peak MB | Ray, its start included, s | peak MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for n_units in arguments.units:
            images = photographs(arguments.photos, arguments.images * n_units)
            inventory = inventory_of(folder, images)
            found = {}
            for name in ("here", "ray"):
                output = str(folder / f"{name}-{n_units}")
                run = [sys.executable, "-c", _RUN, name, str(inventory), output]
                found[name] = timed([*run, str(arguments.images)])
            (s, cpu, mb), (ray_s, _, ray_mb) = found["here"], found["ray"]
            print(f"| {n_units} | {s:.1f} | {cpu:.1f} | {mb:,.0f} | {ray_s:.1f} | {ray_mb:,.0f} |")
            sys.stdout.flush()
        if arguments.bundle:
            one = folder / "one"
            one.mkdir()
            (one / "a.jpg").write_bytes(Path(photographs(arguments.photos, 1)[0]).read_bytes())
            uris = ["--bundle-uri", arguments.bundle, "--images-uri", str(one)]
            command = [sys.executable, "-m", "ctc_ray", "predict", *uris]
            s, cpu, mb = timed([*command, "--output-uri", str(folder / "predictions")])
            print(f"\none photograph predicted: {s:.1f} s, {cpu:.1f} CPU s, peak {mb:,.0f} MB")
            print(json.dumps({"seconds": s, "cpu_s": cpu, "peak_mb": mb}), file=sys.stderr)


if __name__ == "__main__":
    main()
