"""Contact sheets of an inventory, a dataset and predictions show the photographs' own colours."""

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import CLASSES, dataset_in_process, inventory_config, write_events
from PIL import Image

from ctc_ray.config.show import ShowConfig
from ctc_ray.errors import ConfigError, LabelError
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.scores import score_rows
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.schemas import Failure
from ctc_ray.selection.samples import stratified_sample
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.show import gallery, sample

KINDS = ("inventory", "dataset", "predictions")


def write_predictions(folder: Path) -> None:
    """Predictions of the dataset's images, each of its label: what `ctc predict` would write."""
    rows = parquet.read_folder(str(folder / "dataset"))
    usable = rows.filter(rows["failure"].is_null())
    labels = LabelSpace.from_json({"species": sorted(CLASSES)})
    classes = labels.encode("species", usable["label_species"], missing=0)
    probs = {"species": (0.1 + 0.7 * np.eye(3)[classes]).astype(np.float32)}
    answers = score_rows(rows, labels, probs)
    half = answers.num_rows // 2
    for place, part in enumerate((answers.slice(0, half), answers.slice(half))):
        parquet.write_table(str(folder / f"predictions/images/part-{place:05d}.parquet"), part)
    Manifest(
        kind="predictions",
        config={"dataset_uri": str(folder / "dataset"), "image_root_uri": None},
        classes=labels.to_json(),
    ).write(str(folder / "predictions"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`inventory`, `dataset` and `predictions` of 24 images, of which 2 are missing."""
    folder = tmp_path_factory.mktemp("gallery")
    csv_path = write_events(folder / "photos", broken=[1])
    create_inventory.run(inventory_config(csv_path, folder / "inventory"))
    dataset_in_process(folder / "inventory", folder / "photos", folder / "dataset")
    write_predictions(folder)
    return folder


def drawn(folder: Path, kind: str, out: Path, **options: Any) -> tuple[dict[str, Any], np.ndarray]:
    """What `draw` tells, and the sheet's pixels, HWC."""
    values = {"uri": str(folder / kind), "contact_sheet": str(out / f"{kind}.png"), **options}
    if kind == "inventory":
        values |= {"image_root_uri": str(folder / "photos")}
    manifest = read_manifest(values["uri"])
    told = gallery.draw(ShowConfig.model_validate(values), values["uri"], manifest)
    return told, np.asarray(Image.open(values["contact_sheet"])).astype(int)


@pytest.mark.parametrize("kind", KINDS)
def test_all_images_are_on_a_large_sheet_and_failures_are_gray(
    folder: Path, kind: str, tmp_path: Path
) -> None:
    told, sheet_HWC = drawn(folder, kind, tmp_path)
    assert told["images_on_it"] == 24
    assert told["images_without_pixels"] == "missing 2"
    n_gray = (sheet_HWC == 192).all(axis=2).sum()
    assert 1.8 * 160 * 160 < n_gray < 2.02 * 160 * 160


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_hold_the_colours_of_their_classes_in_order(
    folder: Path, kind: str, tmp_path: Path
) -> None:
    told, sheet_HWC = drawn(folder, kind, tmp_path, images=6, columns=6, tile=64)
    assert told["images_on_it"] == 6
    columns = np.array_split(sheet_HWC[30:66], 6, axis=1)
    middles = [column[:, 20:50].reshape(-1, 3) for column in columns]
    is_gray = [(pixels == 192).all(axis=1).mean() > 0.3 for pixels in middles]
    colours = ["gray" if g else CLASSES[int(p.mean(axis=0).argmax())]
               for g, p in zip(is_gray, middles, strict=True)]  # fmt: skip
    shown = [colour for colour in colours if colour != "gray"]
    assert shown == sorted(shown)
    assert {"blue", "red"} <= set(shown)


@pytest.mark.parametrize("kind", KINDS)
def test_same_folder_gives_the_same_sheet(folder: Path, kind: str, tmp_path: Path) -> None:
    drawn(folder, kind, tmp_path, images=7)
    first = (tmp_path / f"{kind}.png").read_bytes()
    drawn(folder, kind, tmp_path, images=7)
    assert (tmp_path / f"{kind}.png").read_bytes() == first


def test_captions_tell_label_and_split_or_prediction_and_score(folder: Path) -> None:
    expected = {"dataset": {"train", "val"}, "predictions": {"red 0.80", "(missing)"}}
    for kind, words in expected.items():
        uri = str(folder / kind)
        manifest = read_manifest(uri)
        rows = sample.candidates(uri, manifest, "species").to_pylist()
        captions = {line for row in rows for line in gallery._caption(manifest, row)}
        assert words <= captions


def test_rows_lie_where_the_candidates_say(folder: Path) -> None:
    uri = str(folder / "dataset")
    for row in sample.candidates(uri, read_manifest(uri), "count").to_pylist():
        with parquet.open_parquet(storage.join(uri, row["part"])) as file:
            there = file.read_row_group(row["group"]).slice(row["row"], 1).to_pylist()[0]
        assert there["image_id"] == row["image_id"]
        assert (there["label_count"], there["failure"]) == (row["class"], row["failure"])
        assert row["part"].startswith(f"split={row['split']}/")


def test_of_many_rows_only_some_are_looked_at_and_none_of_the_splits_is_forgotten(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(folder / "dataset")
    monkeypatch.setattr(sample, "_CANDIDATES", 8)
    monkeypatch.setattr(sample, "_THREADS", 2)
    rows = sample.candidates(uri, read_manifest(uri), "species")
    assert 8 <= rows.num_rows < 24
    assert set(rows["split"].to_pylist()) == {"train", "val"}
    assert (
        stratified_sample(rows, 4, over=["split"])["split"].to_pylist()
        == ["train"] * 2 + ["val"] * 2
    )


def test_pixels_of_a_tile_are_those_of_its_image(folder: Path) -> None:
    uri = str(folder / "dataset")
    rows = sample.candidates(uri, read_manifest(uri), "species").to_pylist()
    stored = {row["image_id"]: row["jpeg"] for row in parquet.read_folder(uri).to_pylist()}
    for row, image in zip(rows, gallery._from_shards(uri, rows, 64), strict=True):
        if row["failure"]:
            assert image is Failure.MISSING
            continue
        assert isinstance(image, Image.Image)
        whole = np.asarray(Image.open(BytesIO(stored[row["image_id"]]))).astype(int)
        assert np.abs(np.asarray(image) - whole).max() <= 2  # another decoder rounds otherwise


def test_images_that_are_nowhere_are_gray_tiles(folder: Path, tmp_path: Path) -> None:
    told, _ = drawn(folder, "predictions", tmp_path, image_root_uri=str(tmp_path))
    assert told["images_without_pixels"] == "missing 24"


def test_inventory_without_heads_is_shown_too(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path / "photos", n_events=4)
    config = inventory_config(csv_path, tmp_path / "inventory").replaced(head_columns=())
    create_inventory.run(config)
    told, _ = drawn(tmp_path, "inventory", tmp_path)
    assert told == {"contact_sheet": str(tmp_path / "inventory.png"), "images_on_it": 7}


def test_unknown_head_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"'genus' is no head .* are species, count"):
        drawn(folder, "dataset", tmp_path, head="genus")


def test_predictions_without_an_image_have_no_sheet(tmp_path: Path) -> None:
    labels = {"species": ["red"]}
    (tmp_path / "predictions" / "images").mkdir(parents=True)
    Manifest(kind="predictions", config={}, classes=labels).write(str(tmp_path / "predictions"))
    with pytest.raises(ConfigError, match="holds no image"):
        drawn(tmp_path, "predictions", tmp_path)


def test_shards_of_an_unfinished_append_are_not_shown(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "dataset", tmp_path / "dataset")
    before = drawn(tmp_path, "dataset", tmp_path)
    for split in ("train", "val"):
        part = tmp_path / f"dataset/split={split}/part-00000.parquet"
        shutil.copy(part, part.with_name("part-00009.parquet"))
    after = drawn(tmp_path, "dataset", tmp_path)
    assert after[0] == before[0]
    assert np.array_equal(after[1], before[1])
