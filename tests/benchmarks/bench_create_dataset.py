"""create-dataset end to end, beside plain processes that do the same decode, resize, encode."""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

from measure import parse_arguments, peak_memory, photographs, print_table, write_csv

from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.images.resize import to_shard_jpeg
from ctc_ray.stages import create_dataset, create_inventory, runtime


def plain(paths: list[str]) -> int:
    """Read, decode, resize, encode; nothing is written."""
    n_bytes = 0
    for path in paths:
        image = to_shard_jpeg(
            Path(path).read_bytes(),
            smallest_side=400,
            quality=75,
            max_pixels=10**8,
            truncated="fail",
        )
        n_bytes += len(image.jpeg)
    return n_bytes


def stage(folder: Path, images: list[str], name: str) -> float:
    inventory = folder / "inventory"
    if not inventory.exists():
        create_inventory.run(
            CsvInventoryConfig(
                source_uri=str(write_csv(folder / "events.csv", images)),
                output_uri=str(inventory),
                event_column="event",
                image_columns=("image",),
                head_columns=("species",),
            )
        )
    config = CreateDatasetConfig(
        inventory_uri=str(inventory),
        output_uri=str(folder / name),
        heads=("species",),
        images_per_unit=200,
    )
    began = time.perf_counter()
    create_dataset.run(config)
    return time.perf_counter() - began


def main() -> None:
    arguments = parse_arguments(2050)
    images = photographs(arguments.photos, arguments.images)
    n_cores = os.cpu_count() or 1
    plain(images[:50])  # the files are in the page cache for both
    shares = [images[i::n_cores] for i in range(n_cores)]
    with multiprocessing.get_context("spawn").Pool(n_cores) as pool, peak_memory() as plain_peak:
        pool.map(plain, [share[:5] for share in shares])  # imports are done
        began = time.perf_counter()
        pool.map(plain, shares, chunksize=1)
        plain_s = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with peak_memory() as cold_peak:
            cold_s = stage(folder, images, "cold")
        runtime.connect()
        with peak_memory() as warm_peak:
            warm_s = stage(folder, images, "warm")
    base = len(images) / plain_s
    rows = [
        (f"{n_cores} plain processes, same kernel, nothing written", plain_s, plain_peak.mb, 0),
        ("create-dataset, Ray running", warm_s, warm_peak.mb, base),
        ("create-dataset, Ray's start included", cold_s, cold_peak.mb, base),
    ]
    print_table("create-dataset: 400 px, quality 75", rows, len(images))


if __name__ == "__main__":
    main()
