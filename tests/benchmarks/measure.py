"""What the benchmarks share: the real photographs, peak memory of a process tree, a table."""

import argparse
import csv
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from ctc_ray.runs.manifest import Manifest, read_manifest

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos"
_MEGAPIXELS = 2e6


def parse_arguments(n_images: int) -> argparse.Namespace:
    """`--images N --photos FOLDER --keep FOLDER`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=n_images, help="photographs, repeated")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of photographs")
    return parser.parse_args()


def photographs(folder: Path, n_images: int) -> list[str]:
    """The JPEGs of 2 megapixels or more, repeated until there are enough."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg") and path.is_file():
            with Image.open(path) as image:
                if image.width * image.height >= _MEGAPIXELS:
                    found.append(str(path))
    if not found:
        raise SystemExit(f"{folder}: no JPEG of 2 megapixels or more")
    return [found[i % len(found)] for i in range(n_images)]


def write_csv(path: Path, images: Sequence[str]) -> Path:
    """One event per image."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["event", "image", "species"])
        writer.writerows([f"e{i:07d}", image, "abc"[i % 3]] for i, image in enumerate(images))
    return path


def repeated(dataset: Path, times: int) -> Manifest:
    """The dataset's manifest with each shard so many times, as copies on the disk."""
    manifest = read_manifest(str(dataset), "dataset")
    shards = []
    for shard in manifest.shards:
        for number in range(times):
            path = shard.path.replace(".parquet", f"-{number}.parquet")
            (dataset / path).write_bytes((dataset / shard.path).read_bytes())
            shards.append(shard.model_copy(update={"path": path}))
    return manifest.model_copy(update={"shards": shards})


class Peak:
    """Peak memory in MB."""

    mb = 0.0


@contextmanager
def peak_memory(pid: int | None = None) -> Iterator[Peak]:
    """Sample a process and all below it (proportional set size, so nothing counts twice).

    Args:
        pid: this process, if none is given.
    """
    peak, stopped = Peak(), threading.Event()
    root = os.getpid() if pid is None else pid

    def sample() -> None:
        while not stopped.wait(0.5):
            peak.mb = max(peak.mb, sum(map(_pss_kb, _tree(root))) / 1024)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def _pss_kb(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0


def machine() -> str:
    """Cores, versions and the day, for the line above a table."""
    names = ("ray", "torch", "pyarrow", "pillow", "simplejpeg")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    python = platform.python_version()
    return f"{os.cpu_count()} cores, Python {python}, {versions}; {time.strftime('%Y-%m-%d')}"


def print_table(title: str, rows: Sequence[tuple[str, float, float, float]], n_images: int) -> None:
    """Rows are what, seconds, peak MB, and images/s of the row to compare with (0: none)."""
    print(f"\n### {title}\n")
    print(f"{n_images:,} images, {machine()}\n")
    print("| what | s | images/s | ratio | peak MB |")
    print("|---|---|---|---|---|")
    for what, seconds, mb, base in rows:
        rate = n_images / seconds
        ratio = f"{rate / base:.2f}" if base else "1"
        print(f"| {what} | {seconds:.1f} | {rate:.1f} | {ratio} | {mb:,.0f} |")
