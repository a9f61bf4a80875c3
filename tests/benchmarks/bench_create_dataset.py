"""create-dataset end to end, beside the bound, img2dataset, and the plain Ray Data recipe.

All read the same files: the real photographs of 2 megapixels or more under as many names as were
asked for, hard links to the files (symbolic ones where the disk allows no others). A few hundred
MB of them are different, so they lie in the page cache for every line; nothing waits for a disk.

Each part runs in a process of its own; its time is taken inside, around the work alone, its memory
is that of its whole tree. A part that fails keeps its line in the table, with the reason.

img2dataset is measured where it is installed, in a virtual environment of its own:

    python -m venv I2D && I2D/bin/pip install img2dataset
    bench_create_dataset.py --images 20000 --img2dataset I2D/bin/python

It reads the files by `file://` URLs (no server, so no more work than the others), one process per
core with 16 reading threads each, smallest side 400, quality 75, into Parquet; EXIF and hashes off.
The start of its processes is in its time.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import PHOTOS, machine, peak_memory, photographs, write_csv

from ctc_ray.stages.cluster.connect import connect

SIDE, QUALITY = 400, 75
ON_ONE_CORE, WITH_RECIPE, WARM_UP = 1000, 500, 100
_REASON = 200  # characters of a reason that fit into a table


@dataclass
class Line:
    """One line of the table; a part that failed has a reason and nothing else."""

    what: str
    images: int = 0
    seconds: float = 0.0
    mb: float = 0.0
    written_mb: float = 0.0
    reason: str = ""
    times: int = 1
    """What the rate is multiplied with."""

    @property
    def rate(self) -> float:
        return self.times * self.images / self.seconds


# --- the parts: each runs in a process of its own and returns images, seconds, bytes written


def one_core(images: list[str], folder: Path) -> dict[str, float]:
    plain(images[:20])
    images = images[:ON_ONE_CORE]
    began = time.perf_counter()
    plain(images)
    return {"images": len(images), "seconds": time.perf_counter() - began}


def all_cores(images: list[str], folder: Path) -> dict[str, float]:
    n_cores = os.cpu_count() or 1
    shares = [images[i::n_cores] for i in range(n_cores)]
    with multiprocessing.get_context("spawn").Pool(n_cores) as pool:
        pool.map(plain, [share[:5] for share in shares], chunksize=1)  # imports are done
        began = time.perf_counter()
        pool.map(plain, shares, chunksize=1)
        return {"images": len(images), "seconds": time.perf_counter() - began}


def plain(paths: list[str]) -> int:
    """Read, decode, resize, encode; nothing is written."""
    from ctc_ray.images.resize import to_shard_jpeg

    n_bytes = 0
    for path in paths:
        image = to_shard_jpeg(
            Path(path).read_bytes(),
            smallest_side=SIDE,
            quality=QUALITY,
            max_pixels=10**8,
            truncated="fail",
        )
        n_bytes += len(image.jpeg)
    return n_bytes


def cold(images: list[str], folder: Path) -> dict[str, float]:
    return dataset(images, folder)


def warm(images: list[str], folder: Path) -> dict[str, float]:

    connect()
    dataset(images[:WARM_UP], folder / "warm-up")  # Ray has started its workers
    return dataset(images, folder)


def dataset(images: list[str], folder: Path) -> dict[str, float]:
    from ctc_ray.config.dataset import CreateDatasetConfig
    from ctc_ray.config.inventory import CsvInventoryConfig
    from ctc_ray.stages.create_dataset import stage as create_dataset
    from ctc_ray.stages.create_inventory import stage as create_inventory

    folder.mkdir(exist_ok=True)
    source = CsvInventoryConfig(
        source_uri=str(write_csv(folder / "events.csv", images)),
        output_uri=str(folder / "inventory"),
        event_column="event",
        image_columns=("image",),
        head_columns=("species",),
    )
    create_inventory.run(source)
    config = CreateDatasetConfig(
        inventory_uri=source.output_uri,
        output_uri=str(folder / "dataset"),
        heads=("species",),
        # the default is 1,000; few images are cut smaller, so that every core has some
        images_per_unit=1000 if len(images) >= 5000 else max(1, len(images) // 10),
    )
    began = time.perf_counter()
    made = create_dataset.run(config)
    seconds = time.perf_counter() - began
    done = made.rows_out - sum(made.failures.values())
    return {"images": done, "seconds": seconds, "bytes": bytes_below(folder / "dataset")}


def recipe(images: list[str], folder: Path) -> dict[str, float]:
    """As Ray's documentation does it: pixels in, pixels out."""
    import numpy as np
    import ray
    from PIL import Image

    def small(row: dict[str, Any]) -> dict[str, Any]:
        image = Image.fromarray(row["image"])
        scale = SIDE / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        return {"image": np.asarray(image.resize(size))}

    connect()
    images = images[:WITH_RECIPE]
    began = time.perf_counter()
    ray.data.read_images(images).map(small).write_parquet(str(folder / "recipe"))
    seconds = time.perf_counter() - began
    return {"images": len(images), "seconds": seconds, "bytes": bytes_below(folder / "recipe")}


_IMG2DATASET = """
import json, sys, time
from img2dataset import download

if __name__ == "__main__":
    urls, output, n_processes, per_shard, side, quality = sys.argv[1:]
    began = time.perf_counter()
    download(
        url_list=urls, input_format="txt", output_folder=output, output_format="parquet",
        image_size=int(side), resize_mode="keep_ratio", resize_only_if_bigger=True,
        encode_quality=int(quality), processes_count=int(n_processes), thread_count=16,
        number_sample_per_shard=int(per_shard), extract_exif=False, compute_hash=None,
    )
    print(json.dumps({"seconds": time.perf_counter() - began}))
"""


def img2dataset(python: str, images: list[str], folder: Path) -> tuple[list[str], Path]:
    """The command, and the folder it writes."""
    (folder / "download.py").write_text(_IMG2DATASET)
    urls = folder / "urls.txt"
    urls.write_text("".join(f"{Path(image).as_uri()}\n" for image in images))
    n_cores = os.cpu_count() or 1
    per_shard = min(1000, max(1, len(images) // 10))
    output = folder / "img2dataset"
    values = (urls, output, n_cores, per_shard, SIDE, QUALITY)
    return [python, str(folder / "download.py"), *map(str, values)], output


PARTS: dict[str, Callable[[list[str], Path], dict[str, float]]] = {
    part.__name__: part for part in (one_core, all_cores, cold, warm, recipe)
}


# --- the parent: starts one part after the other, and makes the table


def link(found: list[str], folder: Path, n_images: int) -> tuple[list[str], str]:
    """The photographs under `n_images` names in 100 folders, and what kind of links they are."""
    kind = "hard links"
    names = []
    for k in range(n_images):
        name = folder / f"{k % 100:02d}" / f"IMG_{k:07d}.jpg"
        name.parent.mkdir(parents=True, exist_ok=True)
        source = found[k % len(found)]
        try:
            if kind == "hard links":
                os.link(source, name)
        except OSError:
            kind = "symbolic links"
        if kind == "symbolic links":
            name.symlink_to(source)
        names.append(str(name))
    return names, kind


def measure_part(what: str, command: list[str], *, timeout_s: float) -> tuple[Line, dict[str, Any]]:
    """Run a command whose last line of stdout is JSON; what it started is ended with it."""
    began = time.perf_counter()
    print(f"bench: {what} …", file=sys.stderr, flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True)
    line, values = Line(what), {}
    with peak_memory(process.pid) as peak:
        try:
            out, _ = process.communicate(timeout=timeout_s)
            if process.returncode == 0:
                values = json.loads(out.splitlines()[-1])
            else:
                line.reason = f"ended with code {process.returncode}, see stderr"
        except subprocess.TimeoutExpired:
            line.reason = f"not done after {timeout_s:.0f} s"
        except (IndexError, ValueError) as error:
            line.reason = f"no result: {error}"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    line.mb = peak.mb
    line.images, line.seconds = int(values.get("images", 0)), values.get("seconds", 0.0)
    line.written_mb = values.get("bytes", 0) / 1e6
    took = time.perf_counter() - began
    print(f"bench: {what}: {line.reason or 'done'} after {took:.0f} s", file=sys.stderr, flush=True)
    return line, values


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run_part(
    arguments: argparse.Namespace, name: str, what: str, images: list[str], folder: Path
) -> Line:
    work = folder / "work"
    work.mkdir()
    listed = work / "images.json"
    listed.write_text(json.dumps(images))
    command = [sys.executable, __file__, "--part", name, str(listed), str(work)]
    line, _ = measure_part(what, command, timeout_s=arguments.timeout_s)
    shutil.rmtree(work, ignore_errors=True)
    return line


def run_img2dataset(arguments: argparse.Namespace, images: list[str], folder: Path) -> Line:
    what = "img2dataset, file:// URLs, Parquet"
    python = arguments.img2dataset
    if python is None:
        return Line(what, reason="left out: no --img2dataset PYTHON was given")
    there = subprocess.run([python, "-c", "import img2dataset"], capture_output=True, check=False)
    if there.returncode:
        return Line(what, reason=f"left out: {python} cannot import img2dataset")
    work = folder / "work"
    work.mkdir()
    command, output = img2dataset(python, images, work)
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else each process asks the network at its start
    line, _ = measure_part(what, command, timeout_s=arguments.timeout_s)
    if not line.reason:
        line.images, line.written_mb = images_in(output), bytes_below(output) / 1e6
    shutil.rmtree(work, ignore_errors=True)
    return line


def images_in(folder: Path) -> int:
    """Rows with a JPEG in the Parquet files that img2dataset wrote."""
    import pyarrow.parquet as pq

    columns = (pq.read_table(path, columns=["jpg"])["jpg"] for path in folder.glob("*.parquet"))
    return sum(len(column) - column.null_count for column in columns)


def lines(
    arguments: argparse.Namespace, images: list[str], folder: Path, found: list[Line]
) -> None:
    """Measure one part after the other; `found` keeps what is done whatever comes."""
    n_cores = os.cpu_count() or 1
    few = images[: max(1, len(images) // 4)]

    def part(name: str, what: str, some: list[str]) -> None:
        found.append(run_part(arguments, name, what, some, folder))

    part("one_core", f"kernel: 1 plain process, times {n_cores} cores (the bound)", images)
    found[-1].times = n_cores
    part("all_cores", f"{n_cores} plain processes, same kernel, nothing written", images)
    part("warm", "create-dataset, Ray running", images)
    part("cold", "create-dataset, Ray's start included", images)
    part("warm", "create-dataset, Ray running, a quarter of the files", few)
    found.append(run_img2dataset(arguments, images, folder))
    part("recipe", "ray.data: read_images, map, write_parquet (pixels)", images)


def print_lines(found: list[Line], n_images: int, about: str) -> None:
    bound = found[0].rate if found and found[0].seconds else 0.0
    print("\n### create-dataset: 400 px, quality 75\n")
    print(f"{n_images:,} files, {machine()}\n{about}\n")
    print("| what | images | s | images/s | of the bound | peak MB | MB written |")
    print("|---|---|---|---|---|---|---|")
    for line in found:
        if line.reason or not line.seconds:
            reason = " ".join(line.reason.split())[:_REASON].replace("|", "/")
            print(f"| {line.what} | {reason or 'no result'} | | | | | |")
            continue
        share = f"{line.rate / bound:.2f}" if bound else ""
        written = f"{line.written_mb:,.0f}" if line.written_mb else ""
        print(
            f"| {line.what} | {line.images:,} | {line.seconds:.1f} | {line.rate:.1f} "
            f"| {share} | {line.mb:,.0f} | {written} |"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2050, help="files, links to the photographs")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of photographs")
    parser.add_argument("--quick", action="store_true", help="300 files: does every line work?")
    parser.add_argument("--img2dataset", metavar="PYTHON", help="a Python that has img2dataset")
    parser.add_argument("--folder", type=Path, help="where to work; the default is temporary")
    parser.add_argument("--timeout-s", type=float, default=3600, help="of one part")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.part:
        name, listed, work = arguments.part
        result = PARTS[name](json.loads(Path(listed).read_text()), Path(work))
        print(json.dumps(result), flush=True)
        return
    n_images = 300 if arguments.quick else arguments.images
    began, load = time.perf_counter(), os.getloadavg()[0]
    found: list[Line] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder, ignore_cleanup_errors=True) as temporary:
        different = sorted(set(photographs(arguments.photos, 10_000)))
        images, kind = link(different, Path(temporary) / "photos", n_images)
        megabytes = sum(os.path.getsize(path) for path in different) / 1e6
        about = (
            f"The files are {kind} to {len(different)} photographs ({megabytes:,.0f} MB), one "
            f"event each, in the page cache; load of the machine before the start: {load:.1f}."
        )
        for path in different:
            Path(path).read_bytes()
        try:
            lines(arguments, images, Path(temporary), found)
        except KeyboardInterrupt:
            about += " Interrupted."
        finally:
            print_lines(found, n_images, about)
            print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes in all.", flush=True)


if __name__ == "__main__":
    main()
