"""What tests are made of: small photographs, a csv of events, and the folders of each stage."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from PIL import ExifTags, Image

from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.config.model import ModelConfig
from ctc_ray.config.optimization import OptimizerConfig, ScheduleConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.bundle import Bundle, Provenance, save_bundle
from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.runs.executor import InProcess, Job, UnitResult
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.records import BundleRecord
from ctc_ray.runs.units import PlanWriter, Unit
from ctc_ray.splits.location_assignment import Assignment
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory

CLASSES = ("red", "green", "blue")


def photograph(species: str, *, seed: int, size: int = 48) -> bytes:
    """A noisy JPEG whose channel of that colour is bright."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (size, size * 4 // 3, 3), dtype=np.uint8)
    image[:, :, CLASSES.index(species)] += 100
    return bytes(simplejpeg.encode_jpeg(image, quality=85))


def write_events(
    folder: Path, *, n_events: int = 12, n_locations: int = 4, broken: Sequence[int] = ()
) -> Path:
    """A csv of events with 1 to 3 images each, and the images; the events `broken` have no image.

    Every third event has no count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    csv_path = folder / "events.csv"
    with csv_path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["event", "image1", "image2", "image3", "species", "count", "site"])
        for event in range(n_events):
            species = CLASSES[event % len(CLASSES)]
            names = [f"images/e{event:03d}_{k}.jpg" for k in range(1 + event % 3)]
            for k, name in enumerate(names):
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                if event not in broken:
                    path.write_bytes(photograph(species, seed=10 * event + k))
            count = "" if event % 3 == 2 else str(1 + event % 2)
            cells = [*names, *[""] * (3 - len(names))]
            site = f"site{event % n_locations}"
            writer.writerow([f"event{event:03d}", *cells, species, count, site])
    return csv_path


def inventory_config(csv_path: Path, output: Path) -> CsvInventoryConfig:
    return CsvInventoryConfig(
        source_uri=str(csv_path),
        output_uri=str(output),
        event_column="event",
        image_columns=("image1", "image2", "image3"),
        head_columns=("species", "count"),
        meta_columns=("site",),
        location_column="site",
    )


def dataset_config(
    inventory: Path | str, images: Path | str, output: Path | str
) -> CreateDatasetConfig:
    return CreateDatasetConfig(
        inventory_uri=str(inventory),
        output_uri=str(output),
        heads=("species", "count"),
        image_root_uri=str(images),
        split=SplitConfig(fractions={"train": 0.6, "val": 0.4}),
        images_per_unit=5,
        max_failure_fraction=1.0,
    )


def dataset_in_process(inventory: Path | str, images: Path | str, output: Path | str) -> None:
    """A dataset whose units this process does one after the other, without Ray."""
    create_dataset.run(dataset_config(inventory, images, output), executor=InProcess())


class StoppedError(Exception):
    """The executor of a test has done as many units as it was told to."""


@dataclass(frozen=True)
class AtMost:
    """Does some units in this process, then stops the run as if it had been killed."""

    n_units: int

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        yield from InProcess().run(units[: self.n_units], job)
        if self.n_units < len(units):
            raise StoppedError


def train_config(dataset: Path, output: Path) -> TrainConfig:
    return TrainConfig(
        dataset_uri=str(dataset),
        output_uri=str(output),
        heads=("species", "count"),
        model=ModelConfig(image_size=32),
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.01, backbone_rate=1.0),
        batch_size=8,
        max_epochs=6,
        image_choice="all",
        early_stopping_patience=0,
    )


def untrained_bundle(
    output: Path,
    *,
    image_size: int = 32,
    keep_aspect: bool = False,
    backbone: str = "small_cnn",
) -> Path:
    """A finished bundle of random weights with the heads of `write_events`: no time to train."""
    torch.manual_seed(0)
    label_space = LabelSpace({"species": ("blue", "green", "red"), "count": ("1", "2")})
    bundle = Bundle(
        model=MultiHeadModel(make_backbone(backbone, image_size=image_size), label_space),
        image_size=image_size,
        keep_aspect=keep_aspect,
        provenance=Provenance(config={}, data_fingerprint="", metrics={}, n_training_images={}),
    )
    save_bundle(str(output), bundle)
    Manifest(
        kind="bundle",
        config={},
        classes=label_space.to_json(),
        bundle=BundleRecord(image_size=image_size, keep_aspect=keep_aspect),
    ).write(str(output))
    return output


def split_by_name(path: Path) -> str:
    """train for four fifths of the files, otherwise val, by the hash of the file's name."""
    share = int(hashlib.md5(path.name.encode()).hexdigest()[:6], 16) / 0xFFFFFF
    return "train" if share <= 0.8 else "val"


def trashnet_dataset(labelled: Path, folder: Path) -> Path:
    """trashnet_192 as a dataset, split 80/20 into train and val by the hash of the file name."""
    root = labelled / "trashnet_192"
    return labelled_dataset({p: p.parent.name for p in sorted(root.glob("*/*.jpg"))}, root, folder)


def three_splits_by_name(path: Path) -> str:
    """train for six tenths of the files, val and test for two each, by the hash of the name."""
    share = int(hashlib.md5(path.name.encode()).hexdigest()[:6], 16) / 0xFFFFFF
    return "test" if share <= 0.2 else split_by_name(path)


def labelled_dataset(
    images: Mapping[Path, str],
    root: Path,
    folder: Path,
    split_of: Callable[[Path], str] = split_by_name,
) -> Path:
    """Images below the root, with their classes, as a dataset with the head class."""
    csv_path = folder / "images.csv"
    with csv_path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "class", "split"])
        for path, label in images.items():
            name = path.relative_to(root).as_posix()
            writer.writerow([path.name, name, label, split_of(path)])
    create_inventory.run(
        CsvInventoryConfig(
            source_uri=str(csv_path),
            output_uri=str(folder / "inventory"),
            event_column="id",
            image_columns=("image",),
            head_columns=("class",),
            meta_columns=("split",),
        )
    )
    create_dataset.run(
        CreateDatasetConfig(
            inventory_uri=str(folder / "inventory"),
            output_uri=str(folder / "dataset"),
            heads=("class",),
            image_root_uri=str(root),
            split=SplitConfig(by="meta:split"),
        )
    )
    return folder / "dataset"


def trashnet_config(
    dataset: Path, output: Path, *, model: ModelConfig, optimizer: OptimizerConfig, max_epochs: int
) -> TrainConfig:
    return TrainConfig(
        dataset_uri=str(dataset),
        output_uri=str(output),
        heads=("class",),
        model=model,
        optimizer=optimizer,
        schedule=ScheduleConfig(name="cosine"),
        batch_size=64,
        max_epochs=max_epochs,
        early_stopping_patience=0,
    )


def bytes_below(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of every file of a finished folder, work files left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "_work" not in path.parts
    }


def put_file(output_uri: str, name: str, content: bytes = b"x") -> None:
    """A file below a folder, local or in an object store."""
    storage.write_bytes(storage.join(output_uri, name), content)


def files_below(output_uri: str) -> list[str]:
    """The names of all files below a folder."""
    return [uri.removeprefix(output_uri + "/") for uri in storage.list_files(output_uri)]


def undecided(
    images_LC: Sequence[Sequence[int]],
    shares: Sequence[float],
    chosen: Sequence[int] | None = None,
) -> Assignment:
    """Locations with so many images of each class; all are open, or in the splits `chosen`."""
    counts = np.array(images_LC)
    locations, classes = np.nonzero(counts)
    sizes = counts.sum(axis=1)
    return Assignment(
        np.full(len(counts), -1) if chosen is None else np.array(chosen),
        sizes,
        np.arange(len(counts)),
        sizes.sum() * np.array(shares),
        locations,
        classes,
        counts[locations, classes],
        counts.shape[1],
    )


def numbered_rows(lengths: list[int]) -> pa.Table:
    """Events of these many images, each row numbered."""
    ids = [f"e{event}" for event, n in enumerate(lengths) for _ in range(n)]
    return pa.table({"capture_event_id": ids, "row": range(len(ids))})


def write_plan(output_uri: str, folder: str, rows: pa.Table, images_per_unit: int) -> list[Unit]:
    """Cut rows into units and write their plan files."""
    plan = PlanWriter(output_uri, folder, images_per_unit)
    plan.add(rows)
    return plan.finish()


def create_all(me: int, folder_uri: str, barrier: Any) -> list[bool]:
    """Try to create 20 files at the same moment as other processes; which of them this one made."""
    won = []
    for trial in range(20):
        barrier.wait(60)
        won.append(storage.create_bytes(f"{folder_uri}/{trial}", b"%d" % me * 1000))
    return won


def taken_at(jpeg: bytes, text: str) -> bytes:
    """The JPEG with this capture time in its EXIF data."""
    exif, out = Image.Exif(), io.BytesIO()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = text
    Image.open(io.BytesIO(jpeg)).save(out, "JPEG", exif=exif)
    return out.getvalue()
