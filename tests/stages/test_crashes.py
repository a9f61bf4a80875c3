"""Images that end the process that works on them: they fail, and their neighbours are answered."""

from pathlib import Path
from typing import Any

import pytest
from builders import (
    CLASSES,
    dataset_config,
    inventory_config,
    photograph,
    untrained_bundle,
    write_events,
)
from deadly import KilledError, KilledInEveryUnit, WithDeadlyImages

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.files import parquet
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.cluster.executor import RayExecutor
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict

DEADLY = frozenset({"05.jpg", "11.jpg"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_bundle(tmp_path_factory.mktemp("untrained") / "model")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 images, one missing in truth."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(16):
        raw = photograph(CLASSES[number % 3], seed=number) if number != 7 else b"\xff\xd8\xff"
        (folder / f"{number:02d}.jpg").write_bytes(raw)
    return folder


def config(model: Path, images: Path, output: Path) -> PredictConfig:
    return PredictConfig(
        bundle_uri=str(model),
        output_uri=str(output),
        images_uri=str(images),
        images_per_unit=8,
        batch_size=1,  # an image's answer is the same in any part
        max_failure_fraction=1.0,
        workers=1,
        export=("csv",),
    )


def answers(output: Path) -> dict[str, dict[str, Any]]:
    """File name -> prediction."""
    rows = parquet.read_folder(str(output / "images")).to_pylist()
    return {row["image_uri"].rpartition("/")[2]: row for row in rows}


def require_only_deadly_ones_fail(made: Manifest, output: Path, whole: Path) -> None:
    """Two images have crashed, and all others are answered as without them."""
    assert made.failures == {"unreadable": 1, "crashed": 2}
    found, expected = answers(output), answers(whole)
    assert {name for name, row in found.items() if row["failure"] == "crashed"} == DEADLY
    assert all(found[name]["pred_species"] is None for name in DEADLY)
    assert list(found) == list(expected)
    assert all(found[name] == expected[name] for name in expected.keys() - DEADLY)
    events = parquet.read_folder(str(output / "events"))
    assert sum(events["n_failed"].to_pylist()) == 3
    listed = parquet.read_table(str(output / "_failures.parquet"))["failure"].to_pylist()
    assert sorted(listed) == ["crashed", "crashed", "unreadable"]


@pytest.fixture(scope="module")
def whole(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "out"
    predict.run(config(model, images, folder), executor=InProcess())
    return folder


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_worker_on_ray_that_an_image_kills_is_not_started_for_ever(
    local_ray: None, model: Path, images: Path, whole: Path, tmp_path: Path
) -> None:
    executor = WithDeadlyImages(RayExecutor(), DEADLY)
    made = predict.run(config(model, images, tmp_path / "out"), executor=executor)
    require_only_deadly_ones_fail(made, tmp_path / "out", whole)
    assert predict.run(config(model, images, tmp_path / "out")) == made  # nothing has changed


def test_create_dataset_too_answers_the_neighbours(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path)
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    wanted = dataset_config(tmp_path / "inventory", tmp_path, tmp_path / "out")
    create_dataset.run(
        wanted.replaced(output_uri=str(tmp_path / "whole")), executor=InProcess(n_threads=1)
    )
    executor = WithDeadlyImages(InProcess(n_threads=1), frozenset({"e004_1.jpg"}))
    for killed in (killers := [KilledInEveryUnit(), KilledInEveryUnit()]):
        with pytest.raises(KilledError):
            create_dataset.run(wanted, executor=killed)
    made = create_dataset.run(wanted, executor=executor)
    assert killers[0].tries  # they are kept: a note that is let go of is deleted
    assert made.failures == {"crashed": 1}
    found, expected = (
        parquet.read_folder(str(tmp_path / name)).to_pylist() for name in ("out", "whole")
    )
    assert [r["image_uri"] for r in found] == [r["image_uri"] for r in expected]
    for row, other in zip(found, expected, strict=True):
        if row["image_uri"].endswith("e004_1.jpg"):
            assert (row["failure"], row["jpeg"]) == ("crashed", None)
        else:
            assert row == other
