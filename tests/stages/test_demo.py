from pathlib import Path

import pytest
from builders import CLASSES, photograph

from ctc_ray.config.demo import DemoConfig
from ctc_ray.config.inventory import DirInventoryConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet
from ctc_ray.splits.assign import assign_splits
from ctc_ray.stages import demo
from ctc_ray.stages.create_inventory import stage as create_inventory

pytestmark = pytest.mark.timeout(300)

PARTS = ("inventory", "dataset", "model", "predictions", "export")


def test_drawn_scenes_go_through_every_stage(tmp_path: Path) -> None:
    config = DemoConfig(output_uri=str(tmp_path / "demo"), max_epochs=1, image_size=32)
    manifest = demo.run(config)
    assert manifest.rows_in == manifest.rows_out > 500
    assert manifest.failures == {
        "missing": 1, "unreadable": 1, "truncated": 1, "unsupported": 1
    }  # fmt: skip
    (accuracy,) = (v for k, v in manifest.summary.items() if k.startswith("accuracy on locations"))
    assert [row["head"] for row in accuracy] == ["species", "count"]
    assert all(row["images"] > row["events"] > 20 for row in accuracy)
    assert all((tmp_path / "demo" / part / "_manifest.json").is_file() for part in PARTS)
    assert demo.run(config) == manifest


def own_images(folder: Path, n_images: int) -> DemoConfig:
    for number in range(n_images):
        path = folder / "own" / CLASSES[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(CLASSES[number % 3], seed=number))
    return DemoConfig(
        output_uri=str(folder / "demo"), images=str(folder / "own"), max_epochs=1, image_size=32
    )


def test_own_class_folders_go_through_every_stage(tmp_path: Path) -> None:
    config = own_images(tmp_path, 60)
    manifest = demo.run(config)
    assert manifest.rows_out == 60
    assert [row["head"] for row in manifest.summary["accuracy on test events"]] == ["class"]
    assert "ctc predict" in manifest.summary["run next"]


@pytest.mark.parametrize("n_images", [8, 15])
def test_few_images_are_split_so_that_no_part_is_empty(tmp_path: Path, n_images: int) -> None:
    config = own_images(tmp_path, n_images)
    inventory_uri = str(tmp_path / "inventory")
    source = DirInventoryConfig(source_uri=str(tmp_path / "own"), output_uri=inventory_uri)
    create_inventory.run(source)
    split = demo._split(config, inventory_uri)
    rows = parquet.read_folder(inventory_uri)
    splits = assign_splits(rows, by=split.by, fractions=split.fractions, salt=split.salt)
    assert set(splits.to_pylist()) == {"train", "val", "test"}


def test_too_few_images_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"own: 3 images are too few for a training, a valid"):
        demo.run(own_images(tmp_path, 3))
