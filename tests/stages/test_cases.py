"""Small inputs that people of the field have reported, from end to end: what the README there says.

Each runs by the commands themselves: the inventory, the dataset where there are images, and the
training or the prediction where the case is about them.
"""

import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import untrained_bundle

from ctc_ray import cli
from ctc_ray.files import parquet
from ctc_ray.runs.manifest import Manifest, read_manifest

pytestmark = [pytest.mark.real_data, pytest.mark.timeout(300)]

CSV = ("--event-column", "id", "--image-columns", "file", "--head-columns", "species")
TIMES = (*CSV, "--captured-at-column", "when", "--location-column", "site")


@pytest.fixture
def case(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Path:
    """A copy of the case, as the working directory."""
    shutil.copytree(shared_data.parent / "cases" / request.param, tmp_path / "case")
    monkeypatch.chdir(tmp_path / "case")
    return tmp_path / "case"


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [name], indirect=True, ids=[name])


def ctc(*argv: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code in (0, None)


def told(*argv: str, code: int = 0) -> str:
    """What a command, in a process of its own, tells on its terminal."""
    command = [sys.executable, "-m", "ctc_ray", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def refused(*argv: str) -> str:
    """The one line of a command that ends with an error."""
    (line,) = told(*argv, code=1).splitlines()
    return line


def inventory(*argv: str) -> Manifest:
    ctc("create-inventory", *argv, "--output-uri", "inventory")
    return read_manifest("inventory", "inventory")


def dataset(*argv: str, heads: Sequence[str] = ("species",)) -> Manifest:
    given = ("--heads", *heads) if heads else ()
    ctc(
        *("create-dataset", "--inventory-uri", "inventory", "--output-uri", "dataset"),
        *("--image-root-uri", "root", *given, *argv),
    )
    made = read_manifest("dataset", "dataset")
    assert made.rows_out == made.rows_in
    return made


def events() -> dict[str, list[str]]:
    """Event -> the names of its images, in their order."""
    found: dict[str, list[str]] = {}
    for row in parquet.read_folder("inventory").to_pylist():
        assert len(found.setdefault(row["capture_event_id"], [])) == row["image_index"]
        found[row["capture_event_id"]].append(row["image_uri"].rpartition("/")[2])
    return found


def labels(column: str = "species") -> dict[str, Any]:
    """Image -> the label of the dataset."""
    rows = parquet.read_folder("dataset").to_pylist()
    return {row["image_uri"].rpartition("/")[2]: row[f"label_{column}"] for row in rows}


@of("01-exif-datetime-only")
def test_times_of_every_kind_of_file(case: Path) -> None:
    ctc("create-inventory", "images", "--source-uri", "pics", "--output-uri", "without")
    three = read_manifest("without", "inventory")
    assert three.findings["images_without_time"] == 3
    made = inventory(
        *("images", "--source-uri", "pics"),
        *("--time-from", "original", "digitized", "modify-date"),
    )
    assert (made.rows_out, len(events())) == (18, 6)
    assert all(len(names) == 3 for names in events().values())


@of("03-windows-paths")
def test_paths_of_windows(case: Path) -> None:
    for source in (
        ("csv", "--source-uri", "relative.csv", *CSV),
        ("coco", "--source-uri", "coco.json"),
    ):
        made = inventory(*source, "--overwrite")
        assert made.findings["windows_paths"] == 6
        assert dataset("--overwrite").failures == {}
    absolute = ("create-inventory", "csv", "--source-uri", "absolute.csv", *CSV)
    line = refused(*absolute, "--output-uri", "x")
    assert "absolute paths of Windows" in line
    assert "--strip-prefix" in line
    inventory(*absolute[1:], "--strip-prefix", "D:\\survey", "--overwrite")
    assert dataset("--overwrite").failures == {}


@of("04-labels-odd")
def test_labels_that_look_like_something_else(case: Path) -> None:
    made = inventory(
        *("csv", "--source-uri", "labels.csv", *CSV[:4]),
        *("--head-columns", "species", "count", "tag"),
    )
    assert {"007", "7", "7.0", "NA", "no", "yes", "true"} <= set(made.classes["species"])
    assert made.findings["labels_of_one_number"] == 4
    assert made.findings["labels_like_missing"] == 4
    dataset(*("--mapping-uri", "map.yaml"))
    found = set(labels().values())
    assert {"bond", "seven", "absent", "present", "truth"} <= found
    assert not {"007", "7.0", "no", "yes"} & found


@of("06-folder-with-videos-and-loops")
def test_a_card_with_videos_and_loops(case: Path) -> None:
    (case / "root" / "camA" / "parent").symlink_to("..")
    (case / "root" / "camA" / "gone.JPG").symlink_to("nowhere")
    (case / "root" / "camB").symlink_to("camA")
    untrained_bundle(case / "model")
    ctc(
        *("predict", "--bundle-uri", "model", "--images-uri", "root", "--output-uri", "out"),
        *("--max-failure-fraction", "0.5"),
    )
    made = read_manifest("out", "predictions")
    inventory("images", "--source-uri", "root")
    answered = parquet.read_folder("out/images")
    assert answered["image_id"].equals(parquet.read_folder("inventory")["image_id"])
    names = [uri.rpartition("/")[2] for uri in answered["image_uri"].to_pylist()]
    good = [name for name, f in zip(names, answered["failure"].to_pylist(), strict=True) if not f]
    assert sorted(set(good)) == [f"IMG_000{n}.JPG" for n in range(6)]
    assert set(made.failures) <= {"unreadable", "missing"}
    assert made.findings["folders_linked_twice"] >= 1


@of("07-megadetector-json")
def test_detections_of_megadetector(case: Path) -> None:
    ctc("create-inventory", "images", "--source-uri", "root", "--output-uri", "images")
    command = ("megadetector", "--inventory-uri", "images", "--source-uri")
    made = inventory(*command, "md.json")
    assert made.rows_out == 9
    assert made.findings["unreadable_detections"] == 1
    boxes = parquet.read_folder("inventory")["boxes"]
    assert boxes.null_count == 2  # not read, which is not "nothing detected"
    ctc(
        *("create-dataset", "--inventory-uri", "inventory", "--output-uri", "dataset"),
        *("--max-failure-fraction", "0"),
    )
    line = refused("create-inventory", *command, "md_old.json", "--output-uri", "x")
    assert "detection_categories" in line


@of("08-coco-oddities")
def test_odd_coco_files(case: Path) -> None:
    made = inventory("coco", "--source-uri", "test_no_annotations.json")
    assert (made.rows_out, made.classes) == (8, {})
    assert dataset(heads=()).rows_out == 8
    made = inventory("coco", "--source-uri", "mixed.json", "--overwrite")
    assert made.findings["sequences_of_several_locations"] == 1
    assert made.findings["unreadable_times"] == 3
    assert set(made.classes["count"]) == {"1", "2"}
    assert dataset("--observations", "first", "--overwrite").rows_out == made.rows_out


@of("10-dcim-folders-and-rollover")
def test_bursts_over_two_folders(case: Path) -> None:
    inventory("images", "--source-uri", "root")
    assert sorted(events().values()) == [
        ["IMG_8.JPG", "IMG_9.JPG", "IMG_10.JPG", "IMG_11.JPG"],
        ["IMG_9998.JPG", "IMG_9999.JPG", "IMG_0001.JPG"],
    ]


@of("11-csv-from-spreadsheets")
@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("utf16.csv", ("--time-format", "%m/%d/%Y %I:%M:%S %p")),
        ("us_dates.csv", ("--time-format", "%m/%d/%Y %I:%M:%S %p")),
        ("de_dates.csv", ("--time-format", "%d.%m.%Y %H:%M")),
        ("slash_dates.csv", ()),
        ("onedigit.csv", ()),
        ("sepline.csv", ()),
    ],
)
def test_tables_of_spreadsheets(case: Path, source: str, options: tuple[str, ...]) -> None:
    made = inventory("csv", "--source-uri", source, *TIMES, *options)
    rows = parquet.read_folder("inventory")
    assert rows["captured_at"].null_count == 0
    assert {str(time)[:10] for time in rows["captured_at"].to_pylist()} == {"2021-05-03"}
    assert set(made.classes["species"]) in ({"Élan"}, {"fox"})
    assert dataset().failures == {}


@of("11-csv-from-spreadsheets")
def test_what_cannot_be_known_of_a_spreadsheet_is_asked_for(case: Path) -> None:
    command = ("create-inventory", "csv", *TIMES, "--output-uri", "x", "--source-uri")
    assert "UTF-8" in refused(*command, "latin1.csv")
    told(*command, "us_dates.csv")
    rows = parquet.read_folder("x")
    assert rows["captured_at"].null_count == 4  # the third of May, or the fifth of March
    assert read_manifest("x", "inventory").findings["unreadable_times"] == 4


@of("12-tables-of-other-tools")
@pytest.mark.parametrize(
    ("source", "options"),
    [
        (
            "timelapse.csv",
            (
                *("--path-columns", "RelativePath", "File", "--head-columns", "Species"),
                *("--captured-at-column", "DateTime", "--location-column", "RelativePath"),
            ),
        ),
        (
            "camtrapR_recordTable.csv",
            (
                *("--path-columns", "Directory", "FileName", "--head-columns", "Species"),
                *("--strip-prefix", "C:/x/root", "--location-column", "Station"),
                *("--captured-at-column", "DateTimeOriginal"),
            ),
        ),
    ],
)
def test_tables_of_other_tools(case: Path, source: str, options: tuple[str, ...]) -> None:
    made = inventory("csv", "--source-uri", source, *options)
    assert made.rows_out == 4
    head = next(iter(made.classes))
    assert dataset(heads=(head,)).failures == {}
    assert set(labels(head).values()) == {"fox"}


@of("12-tables-of-other-tools")
def test_species_of_two_columns(case: Path) -> None:
    made = inventory(
        *("csv", "--source-uri", "wi_images.csv", "--event-column", "image_id"),
        *("--image-columns", "location", "--head-columns", "species=genus+species"),
    )
    assert made.classes == {"species": ["Vulpes vulpes"]}


@of("13-training-edges")
@pytest.mark.parametrize("batch_size", [8, 11])
def test_edges_of_a_training(case: Path, batch_size: int) -> None:
    heads = ("species", "one", "rare", "allmissingval")
    inventory(
        *("csv", "--source-uri", "labels.csv", *CSV[:4], "--head-columns", *heads),
        *("--meta-columns", "fold"),
    )
    made = dataset("--split.by", "meta:fold", heads=heads)
    images = {split.split: split.images for split in made.splits}
    trained = ("species", "rare")
    ctc(
        *("train", "--dataset-uri", "dataset", "--output-uri", "model", "--heads", *trained),
        *("--model.backbone", "small_cnn", "--model.image-size", "32", "--max-epochs", "2"),
        *("--batch-size", str(batch_size)),
    )
    rows = read_manifest("model", "bundle").summary["on the validation split"]
    found = {row["head"]: row for row in rows}
    assert found["species"]["n"] == images["val"] == 6
    assert found["rare"]["n"] == 1
    assert all(math.isfinite(v) for row in rows for v in row.values() if not isinstance(v, str))
    assert "wolverine" in str(made.summary["classes_not_in_every_split"])


@of("13-training-edges")
def test_a_head_with_one_class(case: Path) -> None:
    inventory(
        *("csv", "--source-uri", "labels.csv", *CSV[:4], "--head-columns", "one"),
        *("--meta-columns", "fold"),
    )
    dataset("--split.by", "meta:fold", heads=("one",))
    text = told(
        *("train", "--dataset-uri", "dataset", "--output-uri", "model", "--heads", "one"),
        *("--model.backbone", "small_cnn", "--model.image-size", "32", "--max-epochs", "1"),
    )
    assert "head one has one class only: its accuracy of 1 says nothing" in text


@of("17-machine-labels-in-camtrap-dp")
def test_labels_of_models_and_people(case: Path) -> None:
    (case / "root").symlink_to(case / "pkg")
    made = inventory("camtrap-dp", "--source-uri", "pkg", "--machine-labels", "where-unlabelled")
    assert made.rows_out == 3


@of("18-coco-seq-id-per-camera")
def test_cameras_that_both_count_from_one(case: Path) -> None:
    inventory("coco", "--source-uri", "coco.json")
    assert sorted(map(len, events().values())) == [3, 3]
    dataset()
    rows = parquet.read_folder("dataset").to_pylist()
    by_camera = {row["image_uri"][0]: row["label_species"] for row in rows}
    assert by_camera == {"A": "fox", "B": "empty"}


@of("20-one-image-in-several-events")
def test_a_file_in_several_splits(case: Path, shared_data: Path) -> None:
    (case / "root").symlink_to(shared_data.parent / "cases" / "13-training-edges" / "root")
    inventory(
        *("csv", "--source-uri", "labels.csv", *CSV, "--meta-columns", "fold"),
        *("--location-column", "site"),
    )
    made = dataset("--split.by", "meta:fold")
    leaking = {row["same"]: row["in_several_splits"] for row in made.summary["leakage"]}
    assert leaking["image"] == 6
    assert "files_with_several_labels" in made.summary


@of("21-reconyx-maker-note")
def test_the_time_of_a_maker_note(case: Path) -> None:
    made = inventory("images", "--source-uri", ".")
    (row,) = parquet.read_folder("inventory").to_pylist()
    assert str(row["captured_at"]) == "2020-03-16 10:00:00"
    assert made.findings["times_from_maker_note"] == 1
