"""The sheet of what training sees: its pixels are those of the reader that training has."""

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import bytes_below, dataset_in_process, inventory_config, write_events
from PIL import Image

from ctc_ray.config.base import build
from ctc_ray.config.show import ShowConfig
from ctc_ray.config.training import AugmentConfig
from ctc_ray.errors import ConfigError, CtcError
from ctc_ray.images.augment import augment_batch
from ctc_ray.labels import LabelSpace
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.show import stage as show
from ctc_ray.stages.train.pixels import decode
from ctc_ray.training.batches import LoaderSettings, read_batches
from ctc_ray.training.plans import list_row_groups, plan_epoch

SIZE, GAP, CAPTION = 32, 6, 26  # two lines of 13 pixels


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images, of which 2 are missing."""
    folder = tmp_path_factory.mktemp("augmented")
    csv_path = write_events(folder / "photos", broken=[1])
    create_inventory.run(inventory_config(csv_path, folder / "inventory"))
    dataset_in_process(folder / "inventory", folder / "photos", folder / "dataset")
    return folder / "dataset"


def drawn(dataset: Path, out: Path, **options: Any) -> tuple[dict[str, Any], bytes]:
    values = {"uri": str(dataset), "augmented": str(out), **options}
    told = show.run(build(ShowConfig, values, where="show")).values
    return dict(told), out.read_bytes()


def tiles(png: bytes, rows: int, columns: int) -> np.ndarray:
    """The pixels (rows, columns, S, S, 3) of a sheet."""
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    down, right = SIZE + CAPTION + GAP, SIZE + GAP
    assert sheet.shape == (rows * down + GAP, columns * right + GAP, 3)
    return np.stack(
        [
            [sheet[GAP + r * down :][:SIZE, GAP + c * right :][:, :SIZE] for c in range(columns)]
            for r in range(rows)
        ]
    )


def seen(dataset: Path, augment: AugmentConfig | None, *, seed: int, epoch: int) -> set[bytes]:
    """The pixels of all training images, of the reader and the colours of a training."""
    manifest = read_manifest(str(dataset), "dataset")
    settings = LoaderSettings(
        LabelSpace.from_json(manifest.classes),
        partial(decode, image_size=SIZE, keep_aspect=True, settings=augment, linear=True),
        batch_size=5,
    )
    groups = list_row_groups(str(dataset), manifest.shards, "train")
    plan = plan_epoch(groups, image_choice="all", seed=seed, epoch=epoch)
    found = set()
    for batch in read_batches(plan, settings):
        images_BCHW = batch.images_BCHW
        if augment is not None:
            images_BCHW = augment_batch(images_BCHW, batch.seeds, augment)
        found |= {image.permute(1, 2, 0).numpy().tobytes() for image in images_BCHW}
    return found


@pytest.mark.parametrize(
    "augment", [{"rotate": 40.0, "erase": 1.0}, {"colour": "full_randomized", "gray": 0.5}]
)
def test_columns_are_what_validation_sees_and_each_epoch_of_training(
    dataset: Path, tmp_path: Path, augment: dict[str, Any]
) -> None:
    settings = tmp_path / "train.yaml"
    settings.write_text(
        "{dataset_uri: elsewhere, output_uri: model, heads: [species], seed: 5,"
        " model: {image_size: 32}, augment: {zoom: 0.3, rotate: 1}}"
    )
    told, png = drawn(
        dataset,
        tmp_path / "a.png",
        config=str(settings),
        augment=augment,
        model={"keep_aspect": True},
        rows=4,
        epochs=3,
    )
    assert (told["augmented_images"], told["image_size"]) == (4, SIZE)
    shown = tiles(png, 4, 4)
    used = AugmentConfig.model_validate({"zoom": 0.3, "rotate": 1, **augment})
    for column in range(4):
        expected = seen(dataset, used if column else None, seed=5, epoch=max(0, column - 1))
        found = {np.ascontiguousarray(tile).tobytes() for tile in shown[:, column]}
        assert len(found) == 4
        assert found <= expected


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_images(
    dataset: Path, tmp_path: Path
) -> None:
    before = bytes_below(dataset)
    options = {"model": {"image_size": SIZE}, "rows": 3, "epochs": 2}
    one, again, other = (
        drawn(dataset, tmp_path / f"{n}.png", seed=seed, **options)[1]
        for n, seed in enumerate((1, 1, 2))
    )
    assert one == again
    first, second = (tiles(png, 3, 3)[:, 0] for png in (one, other))
    assert not np.array_equal(first, second)
    assert bytes_below(dataset) == before


def test_images_are_of_the_splits_that_are_learnt_from(dataset: Path, tmp_path: Path) -> None:
    options = {"model": {"image_size": SIZE}, "rows": 24, "epochs": 1}
    n_images = {
        name: drawn(dataset, tmp_path / "a.png", train_splits=names, **options)[0][
            "augmented_images"
        ]
        for name, names in {"train": ["train"], "val": ["val"], "both": ["val", "train"]}.items()
    }
    assert n_images["val"] != n_images["train"]
    assert n_images["train"] + n_images["val"] == n_images["both"] == 22
    with pytest.raises(
        ConfigError, match="no usable image in the split fold-1; splits are train, val"
    ):
        drawn(dataset, tmp_path / "a.png", train_splits=["fold-1"], **options)


def test_preset_and_file_give_what_the_options_leave_open(dataset: Path, tmp_path: Path) -> None:
    given = {"model": {"image_size": SIZE}, "rows": 3, "epochs": 2}
    original = {"colour": "full_randomized", "gray": 0.0}
    by_preset = drawn(dataset, tmp_path / "a.png", preset="original", **given)[1]
    assert by_preset == drawn(dataset, tmp_path / "b.png", augment=original, **given)[1]
    assert by_preset != drawn(dataset, tmp_path / "c.png", **given)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 100_000}, "are too large a sheet"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml: no such configuration file"),
        ({"head": "genus"}, "'genus' is no head"),
        ({"model": {"backbone": "resnet1"}}, "did you mean"),
    ],
)
def test_what_cannot_be_drawn_is_told(
    dataset: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CtcError, match=message):
        drawn(dataset, tmp_path / "a.png", **options)


def test_only_a_dataset_has_training_images(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds inventory; give the folder of a dataset"):
        drawn(dataset.parent / "inventory", tmp_path / "a.png")


def test_options_of_the_sheet_need_the_sheet() -> None:
    with pytest.raises(ConfigError, match="augment needs augmented"):
        build(ShowConfig, {"uri": "d", "augment": {"zoom": 0.2}}, where="show")
