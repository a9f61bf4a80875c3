"""Whether the memory of a training grows with its epochs or its images.

    python bench_train_memory.py

Peak resident memory of `ctc train` in a process of its own: one worker, small_cnn at 64 pixels, on
drawn images; 3 and 30 epochs of 2,000 images, and 3 epochs of 20,000.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_CASES = ((2_000, 3), (2_000, 30), (20_000, 3))  # images, epochs


def drawn_dataset(folder: Path, n_images: int) -> Path:
    """Events of one to three images, two on average; six in ten are to train."""
    from builders import dataset_config, inventory_config, write_events

    from ctc_ray.runs.executor import InProcess
    from ctc_ray.stages.create_dataset import stage as create_dataset
    from ctc_ray.stages.create_inventory import stage as create_inventory

    dataset = folder / "dataset"
    write_events(folder / "photos", n_events=n_images // 2, n_locations=40)
    create_inventory.run(inventory_config(folder / "photos/events.csv", folder / "inventory"))
    config = dataset_config(folder / "inventory", folder / "photos", dataset)
    create_dataset.run(config.replaced(images_per_unit=500), executor=InProcess())
    return dataset


def peak_mb(dataset: Path, output: Path, n_epochs: int) -> tuple[float, float]:
    """Peak resident memory of a training in MB, and its seconds."""
    options = ["--max-epochs", str(n_epochs), "--model.image-size", "64", "--image-choice", "all"]
    uris = ["--dataset-uri", str(dataset), "--output-uri", str(output)]
    command = [sys.executable, "-m", "ctc_ray", "train", *uris, "--heads", "species", "count"]
    began = time.perf_counter()
    run = subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(run.pid, 0)  # of this process alone; kilobytes on Linux
    run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise SystemExit(f"bench: ended with {run.returncode}")
    return used.ru_maxrss / 1024, time.perf_counter() - began


def main() -> None:
    print(f"\n### memory of a training\n\n{machine()}\n")
    print("| images | epochs | peak MB | ratio | s |\n|---|---|---|---|---|")
    first = 0.0
    with tempfile.TemporaryDirectory() as name:
        datasets: dict[int, Path] = {}
        for number, (n_images, n_epochs) in enumerate(_CASES):
            if n_images not in datasets:
                folder = Path(name) / str(n_images)
                folder.mkdir()
                datasets[n_images] = drawn_dataset(folder, n_images)
            mb, seconds = peak_mb(datasets[n_images], Path(name) / f"model{number}", n_epochs)
            first = first or mb
            print(f"| {n_images:,} | {n_epochs} | {mb:,.0f} | {mb / first:.2f} | {seconds:.0f} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
