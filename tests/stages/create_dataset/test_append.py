"""Appending is tested without Ray: its units are done one after the other, in this process."""

import contextlib
import csv
import logging
import re
import shutil
import tempfile
from pathlib import Path

import pyarrow.compute as pc
import pytest
from builders import (
    AtMost,
    StoppedError,
    bytes_below,
    dataset_config,
    inventory_config,
    write_events,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.errors import ConfigError, IncompleteDataError, TooManyFailuresError
from ctc_ray.files import parquet, storage
from ctc_ray.runs import output_folder
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import Manifest, is_complete, read_manifest
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory


def create(config: CreateDatasetConfig, *, at_most: int | None = None) -> Manifest | None:
    """Run in this process; the new manifest, None if it stays the old one.

    Args:
        at_most: units, as if the run was killed after them; None: all.
    """
    before = read_manifest(config.output_uri) if is_complete(config.output_uri) else None
    executor = InProcess() if at_most is None else AtMost(at_most)
    with contextlib.suppress(StoppedError):
        made = create_dataset.run(config, executor=executor)
        return None if made == before else made
    return None


def inventory_of(folder: Path, events: dict[str, tuple[str, str]], name: str) -> Path:
    """An inventory of events -> (species, site); there are no images."""
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["event", "image1", "image2", "image3", "species", "count", "site"])
        for event, (species, site) in events.items():
            writer.writerow([event, f"{event}-1.jpg", f"{event}-2.jpg", "", species, "1", site])
    create_inventory.run(inventory_config(folder / f"{name}.csv", folder / name))
    return folder / name


def rows_of(dataset: Path) -> set[tuple[str, str, str]]:
    """Split, image and label of each row."""
    found = set()
    for path in dataset.glob("split=*/*.parquet"):
        rows = parquet.read_table(str(path), ["image_uri", "label_species"]).to_pylist()
        found |= {(path.parent.name, row["image_uri"], row["label_species"]) for row in rows}
    return found


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, CreateDatasetConfig]:
    """A dataset of 12 of 24 events, and the configuration by which it grows by the others."""
    csv_path = write_events(tmp_path / "photos", n_events=24)
    lines = csv_path.read_text().splitlines()
    (tmp_path / "photos" / "first.csv").write_text("\n".join(lines[:13]) + "\n")
    for name in ("first", "events"):
        source = tmp_path / "photos" / f"{name}.csv"
        create_inventory.run(inventory_config(source, tmp_path / name))
    first = dataset_config(tmp_path / "first", tmp_path / "photos", tmp_path / "dataset")
    create(first)
    return tmp_path / "dataset", first.replaced(inventory_uri=str(tmp_path / "events"), append=True)


def test_what_is_there_stays_and_what_is_new_comes(
    grown: tuple[Path, CreateDatasetConfig], tmp_path: Path
) -> None:
    dataset, config = grown
    before = {k: v for k, v in bytes_below(dataset).items() if k.endswith(".parquet")}
    old = read_manifest(str(dataset), "dataset")
    manifest = create(config)
    assert manifest is not None
    after = bytes_below(dataset)
    assert all(after[name] == content for name, content in before.items() if "_" not in name)
    assert (old.rows_out, manifest.rows_in, manifest.rows_out) == (24, 48, 48)
    assert manifest.summary["appended"] == [
        {
            "inventory": str(tmp_path / "events"),
            "images_in_inventory": 48,
            "images": 24,
            "left_out": [{"step": "in the dataset already", "events": 12, "images": 24}],
        },
    ]
    create(config.replaced(append=False, output_uri=str(tmp_path / "whole")))
    assert rows_of(dataset) == rows_of(tmp_path / "whole")
    whole = read_manifest(str(tmp_path / "whole"), "dataset")
    assert (manifest.labels, manifest.classes) == (whole.labels, whole.classes)
    assert manifest.splits == whole.splits
    assert manifest.pixels == whole.pixels != {}
    assert manifest.pixels != old.pixels
    for name in ("shares", "classes_not_in_every_split", "leakage"):
        assert manifest.summary[name] == whole.summary[name], name


def test_new_images_of_an_event_that_is_there_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataset_config(
        inventory_of(tmp_path, {"a": ("red", "s"), "b": ("red", "s")}, "one"), tmp_path, tmp_path
    ).replaced(output_uri=str(tmp_path / "dataset"))
    create(config)
    text = (tmp_path / "one.csv").read_text().replace("a-2.jpg,", "a-2.jpg,a-3.jpg")
    (tmp_path / "two.csv").write_text(text)
    create_inventory.run(inventory_config(tmp_path / "two.csv", tmp_path / "two"))
    with caplog.at_level(logging.WARNING):  # Ray, if it runs, lets only errors pass
        assert create(config.replaced(inventory_uri=str(tmp_path / "two"), append=True)) is None
    assert "1 events have another number of images than in the dataset" in caplog.text


def test_appending_twice_adds_nothing(grown: tuple[Path, CreateDatasetConfig]) -> None:
    dataset, config = grown
    create(config)
    before = bytes_below(dataset)
    assert create(config) is None
    assert bytes_below(dataset) == before


def test_a_killed_append_goes_on_and_the_old_dataset_is_whole_until_it_is_done(
    grown: tuple[Path, CreateDatasetConfig], tmp_path: Path
) -> None:
    dataset, config = grown
    old = read_manifest(str(dataset), "dataset")
    assert create(config, at_most=1) is None
    assert read_manifest(str(dataset), "dataset") == old
    other = config.replaced(inventory_uri=str(inventory_of(tmp_path, {"x": ("red", "s")}, "x")))
    with pytest.raises(ConfigError, match=r"an append of .*events is not finished; run it again"):
        create(other)
    create(config)
    killed = bytes_below(dataset)
    create(
        config.replaced(
            append=False, output_uri=str(tmp_path / "d2"), inventory_uri=old.config["inventory_uri"]
        )
    )
    create(config.replaced(output_uri=str(tmp_path / "d2")))
    assert killed == bytes_below(tmp_path / "d2")


def test_an_append_with_too_many_failures_leaves_the_failures_of_the_dataset(
    grown: tuple[Path, CreateDatasetConfig],
) -> None:
    dataset, config = grown
    before = bytes_below(dataset)
    known = {row[1] for row in rows_of(dataset)}
    photos = Path(str(config.image_root_uri))
    new = [path for path in photos.rglob("*.jpg") if str(path.relative_to(photos)) not in known]
    content = {path: path.read_bytes() for path in new}
    for path in new:
        path.unlink()
    with pytest.raises(TooManyFailuresError, match=r"see .*_work/append/_failures\.parquet") as e:
        create(config.replaced(max_failure_fraction=0.1))
    table = re.findall(r"see (\S+\.parquet)", str(e.value))[0]
    assert parquet.read_table(table).num_rows == len(new)
    after = bytes_below(dataset)
    assert {name: after[name] for name in before} == before
    for path in new:
        path.write_bytes(content[path])
    create(config.replaced(max_failure_fraction=1.0))  # what is done is kept
    assert parquet.read_table(str(dataset / "_failures.parquet")).num_rows == len(new)
    assert not (dataset / "_work" / "append").exists()


def test_a_finished_dataset_that_is_only_read_has_nothing_to_append(
    grown: tuple[Path, CreateDatasetConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config = grown
    create(config)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "create_bytes", refused)
    assert create(config) is None


def test_an_append_whose_inventory_has_changed_can_be_given_up(
    grown: tuple[Path, CreateDatasetConfig], tmp_path: Path
) -> None:
    dataset, config = grown
    create(config, at_most=2)
    inventory = inventory_of(tmp_path, {"x": ("red", "s")}, "x")
    other = config.replaced(inventory_uri=str(inventory))
    with pytest.raises(ConfigError, match="or add --overwrite to delete what it has left"):
        create(other)
    left = create(other.replaced(overwrite=True))
    assert left is not None
    assert left.rows_out == 24 + 2
    assert len(rows_of(dataset)) == 24 + 2
    assert bytes_below(dataset).keys() >= {shard.path for shard in left.shards}


def test_the_first_command_run_again_leaves_an_unfinished_append_alone(
    grown: tuple[Path, CreateDatasetConfig], tmp_path: Path
) -> None:
    dataset, config = grown
    create(config, at_most=2)
    first = config.replaced(inventory_uri=str(tmp_path / "first"), append=False)
    assert create(first) is None
    other = inventory_of(tmp_path, {"x": ("red", "s")}, "x")
    with pytest.raises(ConfigError, match="is not finished"):
        create(config.replaced(inventory_uri=str(other)))
    made = create(config)
    assert made is not None
    assert len(rows_of(dataset)) == made.rows_out == 48


def test_an_append_killed_after_its_manifest_is_finished(
    grown: tuple[Path, CreateDatasetConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, config = grown
    with monkeypatch.context() as patch:
        patch.setattr(output_folder, "end_append", lambda _: None)
        create(config)
    assert create(config) is None
    inventory = inventory_of(tmp_path, {"x": ("red", "s")}, "x")
    create(config.replaced(inventory_uri=str(inventory)))
    assert len(rows_of(dataset)) == 48 + 2
    assert not list((dataset / "_work").glob("append*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": ("species",)}, r"made with other settings \(heads: "),
        ({"resize": {"quality": 80}}, r"other settings \(resize.quality: 75 there, 80 now\)"),
        ({"split": {"by": "time"}}, "a split by time is made of all events at once"),
        ({"balance": {"head": "species"}}, "classes are balanced over all events at once"),
        ({"filter": {"min_events_per_class": 2}}, "rare classes are counted in all events at once"),
        ({"filter": {"min_images_per_class": 2}}, "rare classes are counted in all events at once"),
    ],
)
def test_what_does_not_fit_the_dataset_is_refused(
    grown: tuple[Path, CreateDatasetConfig], change: dict[str, object], message: str
) -> None:
    dataset, config = grown
    before = bytes_below(dataset)
    with pytest.raises(ConfigError, match=message):
        create(CreateDatasetConfig.model_validate({**config.model_dump(), **change}))
    assert bytes_below(dataset) == before


@pytest.mark.parametrize("check", [None, 2])
def test_another_class_mapping_is_refused_and_foretold(tmp_path: Path, check: int | None) -> None:
    mapping = tmp_path / "mapping.csv"
    mapping.write_text("head,from,to\nspecies,red,blue\n")
    config = dataset_config(
        inventory_of(tmp_path, {"a": ("red", "s")}, "a"), tmp_path, tmp_path / "dataset"
    ).replaced(mapping_uri=str(mapping))
    create(config)
    mapping.write_text("head,from,to\nspecies,red,green\n")
    inventory = inventory_of(tmp_path, {"b": ("red", "s")}, "b")
    before = bytes_below(tmp_path)
    with pytest.raises(ConfigError, match=r"mapping.csv: the class mapping is not the one that"):
        create_dataset.run(config.replaced(inventory_uri=str(inventory), append=True, check=check))
    assert bytes_below(tmp_path) == before


def test_there_must_be_a_finished_dataset(
    grown: tuple[Path, CreateDatasetConfig], tmp_path: Path
) -> None:
    with pytest.raises(IncompleteDataError, match="no finished dataset"):
        create(grown[1].replaced(output_uri=str(tmp_path / "none")))


@pytest.mark.parametrize("change", [{"append": True}, {"check": 2}, {"overwrite": True}, {}])
def test_without_the_folder_of_the_images_nothing_is_begun(
    grown: tuple[Path, CreateDatasetConfig], tmp_path: Path, change: dict[str, object]
) -> None:
    config = grown[1]
    shutil.copytree(tmp_path / "photos", tmp_path / "moved")
    first = config.replaced(append=False, inventory_uri=str(tmp_path / "first"))
    moved = first.replaced(image_root_uri=str(tmp_path / "moved"), output_uri=str(tmp_path / "d2"))
    if change == {"append": True}:
        create(moved)
        moved = moved.replaced(inventory_uri=str(tmp_path / "events"))
    before = bytes_below(tmp_path)
    shutil.rmtree(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"moved: no such folder; --image-root-uri"):
        create_dataset.run(moved.replaced(**change))
    gone = {name for name in before if name.startswith("moved/")}
    assert bytes_below(tmp_path) == {k: v for k, v in before.items() if k not in gone}


def test_a_finished_dataset_needs_no_images(
    grown: tuple[Path, CreateDatasetConfig], tmp_path: Path
) -> None:
    first = grown[1].replaced(append=False, inventory_uri=str(tmp_path / "first"))
    shutil.rmtree(tmp_path / "photos")
    assert create(first) is None


@pytest.mark.parametrize(
    "split",
    [
        SplitConfig(by="location", fractions={"train": 0.5, "val": 0.5}),
        SplitConfig(folds=3, fractions={"train": 0.25}),
    ],
    ids=["train and val", "folds"],
)
def test_a_location_keeps_its_split_and_new_classes_come_in(
    tmp_path: Path, split: SplitConfig
) -> None:
    events = {f"e{i:02d}": ("red" if i % 2 else "green", f"s{i % 10}") for i in range(40)}
    more = {f"f{i:02d}": ("blue", f"s{i % 15}") for i in range(30)}
    config = dataset_config(inventory_of(tmp_path, events, "a"), tmp_path, tmp_path / "dataset")
    create(config.replaced(split=split))
    before = splits_of_locations(tmp_path / "dataset")
    inventory = inventory_of(tmp_path, more, "b")
    manifest = create(config.replaced(split=split, inventory_uri=str(inventory), append=True))
    assert manifest is not None
    assert manifest.classes["species"] == ["blue", "green", "red"]
    assert set(manifest.labels["train"]["species"]) == {"blue", "green", "red"}
    splits = splits_of_locations(tmp_path / "dataset")
    assert len(before) == 10
    assert len(splits) == 15
    assert all(len(names) == 1 for names in splits.values())
    assert {site: splits[site] for site in before} == before
    assert set.union(*splits.values()) == {f"split={name}" for name in split.fractions}


def splits_of_locations(dataset: Path) -> dict[str, set[str]]:
    """Location -> the folders of splits that it is in."""
    splits: dict[str, set[str]] = {}
    for path in dataset.glob("split=*/*.parquet"):
        for site in pc.unique(parquet.read_table(str(path))["location_id"]).to_pylist():
            splits.setdefault(site, set()).add(path.parent.name)
    return splits


numbers = st.sets(st.integers(0, 30), min_size=1)


@settings(max_examples=15)
@given(numbers, numbers, st.sampled_from(["event", "location-hash"]))
def test_append_equals_from_scratch(first, second, by):
    def some(chosen: set[int]) -> dict[str, tuple[str, str]]:
        return {f"e{i:02d}": (("red", "green")[i % 2], f"s{i % 7}") for i in sorted(chosen)}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = SplitConfig(by=by, fractions={"train": 0.5, "val": 0.5})
        inventories = {
            key: inventory_of(folder, some(chosen), key)
            for key, chosen in (("a", first), ("b", second), ("ab", first | second))
        }
        whole = dataset_config(inventories["ab"], folder, folder / "whole").replaced(split=split)
        create(whole)
        grows = whole.replaced(output_uri=str(folder / "grown"))
        create(grows.replaced(inventory_uri=str(inventories["a"])))
        create(grows.replaced(inventory_uri=str(inventories["b"]), append=True))
        assert rows_of(folder / "grown") == rows_of(folder / "whole")
        one, other = (read_manifest(str(folder / n), "dataset") for n in ("grown", "whole"))
        assert (one.labels, one.failures) == (other.labels, other.failures)
        assert one.splits == other.splits
        for key in ("shares", "classes_not_in_every_split", "leakage"):
            assert one.summary[key] == other.summary[key], key


@settings(max_examples=15)
@given(st.sets(st.integers(0, 40), min_size=1), st.lists(st.integers(0, 4), max_size=3))
def test_a_run_that_stopped_anywhere_ends_with_the_same_bytes(chosen, stops):
    events = {f"e{i:02d}": (("red", "green")[i % 2], f"s{i % 7}") for i in sorted(chosen)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = dataset_config(inventory_of(folder, events, "a"), folder, folder / "whole")
        create(config)
        stopped = config.replaced(output_uri=str(folder / "stopped"))
        for at_most in stops:
            create(stopped, at_most=at_most)
        create(stopped)
        assert bytes_below(folder / "stopped") == bytes_below(folder / "whole")
