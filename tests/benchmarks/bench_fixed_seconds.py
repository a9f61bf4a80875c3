"""Where the seconds of a training go that has next to nothing to do: one tiny epoch, one worker.

    python bench_fixed_seconds.py [--rounds N]

A dataset of 120 drawn events, small_cnn at 64 pixels, each round a fresh process that takes the
steps of `ctc train` one by one; and beside it the whole command. The fastest of the rounds counts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_small_jobs import timed
from measure import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_MODULES = ("timm", "torchvision", "torch._dynamo", "ray", "transformers", "cv2")


def steps(dataset: str, output: str, began: float) -> dict[str, tuple[float, float]]:
    """What is done -> its seconds and CPU seconds, in this process."""
    found: dict[str, tuple[float, float]] = {}
    clock = [began, 0.0]

    def took(name: str) -> None:
        now = [time.time(), time.process_time()]
        found[name] = (now[0] - clock[0], now[1] - clock[1])
        clock[:] = now

    from ctc_ray import cli

    cli.__doc__  # noqa: B018  # it is imported for its time
    took("start of Python, ctc_ray.cli")
    import torch

    torch.set_num_threads(2)
    took("import torch")
    from ctc_ray.stages.train import stage
    from ctc_ray.stages.train.job import TrainingJob

    took("import of the rest of train")
    from ctc_ray.config.training import TrainConfig

    config = TrainConfig(
        dataset_uri=dataset,
        output_uri=output,
        heads=("species", "count"),
        max_epochs=1,
        model={"image_size": 64},
        image_choice="all",
    )
    manifest = stage.check_dataset(config)
    stage.inputs_of(config)
    stage.check_model(config, manifest)
    took("checks")
    job = TrainingJob(config, manifest, rank=0, n_workers=1, device="cpu")
    job.wrap(lambda model: model)
    took("model, optimiser, list of row groups")
    job.next_epoch()
    took("epoch, with its validation")
    job._measuring.on(job._measured, "val")
    took("(a validation of its own)")
    job.write_bundle(job.end())
    took("ending: metrics, temperatures, files")
    return found


def drawn_dataset(folder: Path) -> Path:
    from builders import dataset_in_process, inventory_config, write_events

    from ctc_ray.stages.create_inventory import stage as create_inventory

    write_events(folder / "photos", n_events=120)
    create_inventory.run(inventory_config(folder / "photos/events.csv", folder / "inventory"))
    dataset_in_process(folder / "inventory", folder / "photos", folder / "dataset")
    return folder / "dataset"


def child(dataset: Path, output: Path) -> dict[str, Any]:
    """What a fresh process measures."""
    command = [sys.executable, __file__, "--steps", str(dataset), str(output), str(time.time())]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def fastest(rounds: int, measure: Callable[[int], tuple[float, float]]) -> tuple[float, float]:
    return min(measure(number) for number in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.steps:
        dataset, output, began = asked.steps
        found = steps(dataset, output, float(began))
        loaded = [name for name in _MODULES if name in sys.modules]
        print(json.dumps({"steps": found, "loaded": loaded}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = drawn_dataset(folder)
        rounds = [child(dataset, folder / f"model{k}") for k in range(asked.rounds)]
        options = ["--max-epochs", "1", "--model.image-size", "64", "--image-choice", "all"]

        def whole(number: int) -> tuple[float, float]:
            uris = ["--dataset-uri", str(dataset), "--output-uri", str(folder / f"whole{number}")]
            command = [sys.executable, "-m", "ctc_ray", "train", *uris, "--heads", "species"]
            return timed([*command, "count", *options])[:2]

        print(f"\n### a training with next to nothing to do\n\n{machine()}\n")
        print("| what | s | CPU s |\n|---|---|---|")
        for what in rounds[0]["steps"]:
            s, cpu = min(tuple(one["steps"][what]) for one in rounds)
            print(f"| {what} | {s:.2f} | {cpu:.2f} |")
        s, cpu = fastest(asked.rounds, whole)
        print(f"| **`ctc train`, all of it** | {s:.1f} | {cpu:.1f} |")
        print(f"\nlibraries that were imported: {', '.join(rounds[0]['loaded'])}")


if __name__ == "__main__":
    main()
