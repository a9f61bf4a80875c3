"""Images per second and core that training's reader makes of shards, beside others.

Shards of 400 pixels made of the real photographs, an input of 224 pixels, one thread:

- by hand: the whole JPEG decoded and one affine warp, nothing else: the bound;
- the reader of `ctc train`, with geometry alone, and with the default colours on the CPU;
- a torch DataLoader with torchvision's v2 transforms of the same strength, in one worker process.

Then the loop of a training whose model is a stub: it sleeps, as the driver of a GPU does, so long
that it takes .8 of the images that the reader alone makes with two threads; the share of the epoch
in which it waits for batches.

    python tests/benchmarks/bench_input.py [--images 2000]
"""

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from measure import machine, parse_arguments, photographs, repeated, write_csv
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.config.training import AugmentConfig
from ctc_ray.files import parquet
from ctc_ray.labels import LabelSpace
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.train.pixels import decode
from ctc_ray.training.batches import LoaderSettings, read_batches
from ctc_ray.training.plans import list_row_groups, plan_epoch
from ctc_ray.training.timed_batches import TimedBatches

SIZE, BATCH = 224, 64
ROUNDS = 3
COPIES = 5  # of each shard, for the stub
STUB_SHARE = 0.8


def dataset_of(folder: Path, photos: list[str]) -> Path:
    create_inventory.run(
        CsvInventoryConfig(
            source_uri=str(write_csv(folder / "photos.csv", photos)),
            output_uri=str(folder / "inventory"),
            event_column="event",
            image_columns=("image",),
            head_columns=("species",),
        )
    )
    create_dataset.run(
        CreateDatasetConfig(
            inventory_uri=str(folder / "inventory"),
            output_uri=str(folder / "dataset"),
            heads=("species",),
            split=SplitConfig(fractions={"train": 1.0}),
        ),
        executor=InProcess(),
    )
    return folder / "dataset"


def by_hand(jpegs: list[bytes], *, warp: bool) -> int:
    """Decode whole, and warp by one affine map that rotates by a few degrees."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    for raw in jpegs:
        image = simplejpeg.decode_jpeg(raw)
        if warp:
            height, width = image.shape[:2]
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-5, 5), 1.0)
            matrix *= np.array([[SIZE / width], [SIZE / height]])
            cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    return len(jpegs)


def by_reader(dataset: Path, augment: AugmentConfig) -> int:
    """The reader of `ctc train` with one decoding thread."""
    manifest = read_manifest(str(dataset), "dataset")
    settings = LoaderSettings(
        LabelSpace.from_json(manifest.classes),
        partial(decode, image_size=SIZE, keep_aspect=False, settings=augment, linear=True),
        BATCH,
        decode_threads=1,
    )
    plan = plan_epoch(
        list_row_groups(str(dataset), manifest.shards, "train"), image_choice="all", seed=0, epoch=0
    )
    return sum(len(batch.image_ids) for batch in read_batches(plan, settings))


def waiting(dataset: Path, manifest: Manifest, augment: AugmentConfig) -> tuple[float, float]:
    """Images per second that the stub takes, and the share of an epoch in which it waits."""
    settings = LoaderSettings(
        LabelSpace.from_json(manifest.classes),
        partial(decode, image_size=SIZE, keep_aspect=False, settings=augment, linear=True),
        BATCH,
    )
    groups = list_row_groups(str(dataset), manifest.shards, "train")
    plan = plan_epoch(groups, image_choice="all", seed=0, epoch=0)
    began = time.perf_counter()
    n_images = sum(len(batch.image_ids) for batch in read_batches(plan, settings))
    taken_s = STUB_SHARE * n_images / (time.perf_counter() - began)
    batches = TimedBatches(read_batches(plan, settings), n_images, lambda _: None)
    began = time.perf_counter()
    for batch in batches:
        time.sleep(len(batch.image_ids) / taken_s)
    return taken_s, batches.waited_s / (time.perf_counter() - began)


class Jpegs(Dataset[torch.Tensor]):
    """What a user of torchvision writes."""

    def __init__(self, jpegs: list[bytes], *, colours: bool) -> None:
        self.jpegs = jpegs
        jitter = [v2.ColorJitter(0.4, 0.4, 0.4, 0.05), v2.RandomGrayscale(0.1)] if colours else []
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomAffine(5, scale=(0.9, 1.1)),
                v2.RandomResizedCrop(SIZE, scale=(0.8, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                *jitter,
            ]
        )

    def __len__(self) -> int:
        return len(self.jpegs)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.open(io.BytesIO(self.jpegs[index])).convert("RGB")
        found: torch.Tensor = self.transform(image)
        return found


def by_torchvision(jpegs: list[bytes], *, colours: bool) -> int:
    torch.set_num_threads(1)
    loader = DataLoader(Jpegs(jpegs, colours=colours), batch_size=BATCH, num_workers=1)
    return sum(len(batch) for batch in loader)


def rate(work: Callable[[], int]) -> float:
    """Images per CPU second of this process and its children."""
    began = time.process_time(), children()
    n = work()
    return n / (time.process_time() - began[0] + children() - began[1])


def children() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rounds(works: dict[str, Callable[[], int]]) -> Iterator[tuple[str, float]]:
    """The best of several rounds, each work once per round."""
    best = dict.fromkeys(works, 0.0)
    for _ in range(ROUNDS):
        for name, work in works.items():
            best[name] = max(best[name], rate(work))
    yield from best.items()


def main() -> None:
    asked = parse_arguments(2000)
    with tempfile.TemporaryDirectory() as name:
        dataset = dataset_of(Path(name), photographs(asked.photos, asked.images))
        jpegs = parquet.read_folder(str(dataset / "split=train"), ["jpeg"])["jpeg"].to_pylist()
        geometry = AugmentConfig(colour="none", gray=0)
        works = {
            "by hand: whole decode": partial(by_hand, jpegs, warp=False),
            "by hand: whole decode + one affine warp (the bound)": partial(
                by_hand, jpegs, warp=True
            ),
            "ctc train: flips": partial(
                by_reader, dataset, AugmentConfig(zoom=0, crop=0, rotate=0, colour="none", gray=0)
            ),
            "ctc train: geometry": partial(by_reader, dataset, geometry),
            "ctc train: geometry and default colours": partial(by_reader, dataset, AugmentConfig()),
            "torch DataLoader, torchvision v2: geometry": partial(
                by_torchvision, jpegs, colours=False
            ),
            "torch DataLoader, torchvision v2: and colours": partial(
                by_torchvision, jpegs, colours=True
            ),
        }
        found = dict(rounds(works))
        copies = repeated(dataset, COPIES)
        stub = {
            "geometry": waiting(dataset, copies, geometry),
            "geometry and default colours": waiting(dataset, copies, AugmentConfig()),
        }
    bound = found["by hand: whole decode + one affine warp (the bound)"]
    print(
        f"{len(jpegs):,} images of shards, input of {SIZE} pixels, best of {ROUNDS}; {machine()}\n"
    )
    print("| what | ms CPU | images per CPU second | of the bound |\n|---|---|---|---|")
    for what, per_second in found.items():
        print(
            f"| {what} | {1000 / per_second:.2f} | {per_second:,.0f} | {per_second / bound:.2f} |"
        )
    print("\n| stub of a model, two threads | images/s it takes | waiting |\n|---|---|---|")
    for what, (taken_s, share) in stub.items():
        print(f"| {what} | {taken_s:,.0f} | {share:.1%} |")


if __name__ == "__main__":
    main()
