"""Three heads of drawn images, one of them with few labels: each learns what it is asked."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from builders import train_config

from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.files import parquet
from ctc_ray.models.bundle import load_bundle
from ctc_ray.runs.executor import InProcess
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.train import stage as train

pytestmark = pytest.mark.timeout(300)

N_IMAGES, SIDE = 560, 48
COLOURS = {"blue": (0, 0, 130), "green": (0, 130, 0), "red": (130, 0, 0), "white": (90, 90, 90)}
HEADS = ("species", "count", "young")


def drawn(rng: np.random.Generator, species: str, count: int, *, is_young: bool) -> bytes:
    """Animals are squares of the species' colour in noise; young ones are small."""
    image = rng.integers(0, 110, (SIDE, SIDE, 3), dtype=np.uint8)
    side = 6 if is_young else 11
    for cell in rng.choice(9, count, replace=False):
        top, left = (16 * int(k) + int(rng.integers(0, 16 - side)) for k in divmod(cell, 3))
        image[top : top + side, left : left + side] += np.array(COLOURS[species], np.uint8)
    return bytes(simplejpeg.encode_jpeg(image, quality=90))


@pytest.fixture(scope="module")
def drawn_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each image is an event; of `young`, 70 % of the labels are missing."""
    folder = tmp_path_factory.mktemp("heads")
    rng = np.random.default_rng(4)
    (folder / "images").mkdir()
    with (folder / "events.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["event", "image", *HEADS])
        for number in range(N_IMAGES):
            species = list(COLOURS)[number % 4]
            count, is_young = int(rng.integers(1, 6)), bool(rng.random() < 0.35)
            jpeg = drawn(rng, species, count, is_young=is_young)
            (folder / "images" / f"{number}.jpg").write_bytes(jpeg)
            young = "" if rng.random() < 0.7 else ("yes" if is_young else "no")
            writer.writerow([f"e{number}", f"images/{number}.jpg", species, count, young])
    create_inventory.run(
        CsvInventoryConfig(
            source_uri=str(folder / "events.csv"),
            output_uri=str(folder / "inventory"),
            event_column="event",
            image_columns=("image",),
            head_columns=HEADS,
        )
    )
    create_dataset.run(
        CreateDatasetConfig(
            inventory_uri=str(folder / "inventory"),
            output_uri=str(folder / "dataset"),
            heads=HEADS,
            image_root_uri=str(folder),
            split=SplitConfig(by="event", fractions={"train": 0.7, "val": 0.3}),
        ),
        executor=InProcess(),
    )
    return folder / "dataset"


def test_a_head_with_few_labels_learns_beside_the_others(
    drawn_dataset: Path, tmp_path: Path
) -> None:
    """With accumulation, mixup and class weights at once."""
    fields = {
        "heads": HEADS,
        "max_epochs": 8,
        "batch_size": 16,
        "accumulate": 2,
        "augment": {"mix": "mixup"},
        "loss": {"class_weights": "inverse"},
    }
    train.run(train_config(drawn_dataset, tmp_path / "model").replaced(**fields))
    found = load_bundle(str(tmp_path / "model")).provenance.metrics
    labels = parquet.read_folder(str(drawn_dataset / "split=val"), ["label_young"])["label_young"]
    counts = Counter(labels.drop_null().to_pylist())
    assert 0.2 < counts.total() / len(labels) < 0.4
    assert found["n_young"] == counts.total()
    assert found["accuracy_young"] > max(counts.values()) / counts.total() + 0.2
    assert found["accuracy_species"] > 0.95
    assert found["accuracy_count"] > 0.4
