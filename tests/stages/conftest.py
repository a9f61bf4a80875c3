"""One local Ray for all tests of stages, and the folders that several of them read."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from builders import dataset_in_process, inventory_config, train_config, write_events

from ctc_ray.stages.cluster.connect import connect
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.train import stage as train

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # workers import modules of tests, as this process
        paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        connect(dashboard=True)  # Ray Tune needs it, and shuts a Ray without it down
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with events.csv (24 events, 48 images, of which 1 is missing) and its images."""
    folder = tmp_path_factory.mktemp("photos")
    write_events(folder, n_events=24, broken=[3])
    return folder


@pytest.fixture(scope="session")
def inventory(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inventory") / "inventory"
    create_inventory.run(inventory_config(photos / "events.csv", folder))
    return folder


@pytest.fixture(scope="session")
def dataset(photos: Path, inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "dataset"
    dataset_in_process(inventory, photos, folder)
    return folder


@pytest.fixture(scope="session")
def bundle(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "model"
    train.run(train_config(dataset, folder))
    return folder
