"""Labels of the source travel into the predictions, and follow the source with `--append`."""

import csv
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders import (
    CLASSES,
    AtMost,
    StoppedError,
    bytes_below,
    dataset_in_process,
    inventory_config,
    photograph,
    untrained_bundle,
    write_events,
)

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError, LabelError
from ctc_ray.files import parquet
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict

HEADS = ("species", "count")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_bundle(tmp_path_factory.mktemp("untrained") / "model")


@pytest.fixture(scope="module")
def shared_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 events with 48 images, one of them missing; every third event has no count."""
    folder = tmp_path_factory.mktemp("photos")
    write_events(folder, n_events=24, broken=[3])
    return folder


def config(model: Path, output: Path, **fields: object) -> PredictConfig:
    values = {
        "bundle_uri": str(model),
        "output_uri": str(output),
        "batch_size": 1,
        "images_per_unit": 7,
        "max_failure_fraction": 1.0,
        **fields,
    }
    return PredictConfig.model_validate(values)


def run(made: PredictConfig, **fields: object) -> Manifest:
    return predict.run(made.replaced(**fields), executor=InProcess())


def by_csv(model: Path, output: Path, photos: Path, table: Path, **fields: object) -> PredictConfig:
    return config(
        model,
        output,
        csv_uri=str(table),
        event_column="event",
        image_columns=("image1", "image2", "image3"),
        image_root_uri=str(photos),
        **{"head_columns": HEADS, **fields},
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def labels_of_csv(path: Path) -> dict[str, tuple[str | None, str | None]]:
    """Event -> its labels, by hand."""
    return {row["event"]: (row["species"] or None, row["count"] or None) for row in read_csv(path)}


def labels(output: Path, folder: str) -> list[tuple[str, tuple[str | None, ...]]]:
    rows = parquet.read_folder(str(output / folder)).to_pylist()
    return [
        (row["capture_event_id"], tuple(row[f"label_{head}"] for head in HEADS)) for row in rows
    ]


def require_labels_of(output: Path, expected: dict[str, Any]) -> None:
    """Every image and every event has the labels of its event, and nobody else's."""
    images, events = labels(output, "images"), labels(output, "events")
    assert dict(images).items() <= expected.items()
    assert all(expected[event] == label for event, label in images)
    assert dict(events) == expected
    assert len(events) == len(expected)


def test_labels_of_an_inventory_and_of_a_csv_travel_with_images_and_events(
    model: Path, shared_photos: Path, tmp_path: Path
) -> None:
    table = shared_photos / "events.csv"
    expected = labels_of_csv(table)
    assert {None, "1", "2"} == {count for _, count in expected.values()}
    create_inventory.run(inventory_config(table, tmp_path / "inventory"))
    of_inventory = config(
        model,
        tmp_path / "a",
        inventory_uri=str(tmp_path / "inventory"),
        image_root_uri=str(shared_photos),
    )
    assert run(of_inventory).failures == {"missing": 1}
    require_labels_of(tmp_path / "a", expected)
    made = run(by_csv(model, tmp_path / "b", shared_photos, table))
    assert made.meta == ["site"]  # the labels are no metadata
    require_labels_of(tmp_path / "b", expected)
    failed = parquet.read_folder(str(tmp_path / "b" / "images")).to_pylist()
    (failed,) = [row for row in failed if row["failure"]]
    assert (failed["label_species"], failed["pred_species"]) == ("red", None)


def test_labels_of_a_dataset_travel_with_its_shards(
    model: Path, shared_photos: Path, tmp_path: Path
) -> None:
    table = shared_photos / "events.csv"
    create_inventory.run(inventory_config(table, tmp_path / "inventory"))
    dataset_in_process(tmp_path / "inventory", shared_photos, tmp_path / "dataset")
    run(config(model, tmp_path / "out", dataset_uri=str(tmp_path / "dataset")))
    require_labels_of(tmp_path / "out", labels_of_csv(table))


def test_without_labels_there_are_no_columns_of_labels(
    model: Path, shared_photos: Path, tmp_path: Path
) -> None:
    """A column of the csv is metadata until it is named."""
    made = run(
        by_csv(model, tmp_path / "a", shared_photos, shared_photos / "events.csv", head_columns=())
    )
    assert made.meta == ["species", "count", "site"]
    run(config(model, tmp_path / "b", images_uri=str(shared_photos / "images")))
    for folder in ("a/images", "a/events", "b/images", "b/events"):
        names = parquet.read_folder(str(tmp_path / folder)).column_names
        assert not [name for name in names if name.startswith("label_")]


def test_only_labels_of_the_models_heads_are_taken_and_a_class_it_does_not_know_is_kept(
    model: Path, shared_photos: Path, tmp_path: Path
) -> None:
    rows = read_csv(shared_photos / "events.csv")
    for row in rows:
        row["sex"], row["genus"], row["epithet"] = "female", row["species"], "x"
    table = write_csv(tmp_path / "events.csv", rows)
    made = by_csv(model, tmp_path / "out", shared_photos, table)
    run(made, head_columns=("species=genus+epithet",))
    images = parquet.read_folder(str(tmp_path / "out" / "images"))
    assert set(images["label_species"].to_pylist()) == {f"{name} x" for name in CLASSES}
    assert "label_count" not in images.column_names
    assert {"meta_species", "meta_sex"} < set(images.column_names)
    assert "meta_genus" not in images.column_names
    with pytest.raises(LabelError, match="'sex' is no head of the model, whose heads are species"):
        run(made, head_columns=("sex",), output_uri=str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_an_event_with_several_labels_counts_as_not_labelled(
    model: Path, shared_photos: Path, tmp_path: Path
) -> None:
    first, second, third, *rows = read_csv(shared_photos / "events.csv")
    rows = [first, {**first, "species": "blue"}, second, {**second, "count": ""}, third, *rows]
    rows += [{**third, "count": "1"}, {**third, "count": "2"}]
    table = write_csv(tmp_path / "events.csv", rows)
    create_inventory.run(inventory_config(table, tmp_path / "inventory"))
    made = config(
        model,
        tmp_path / "out",
        inventory_uri=str(tmp_path / "inventory"),
        image_root_uri=str(shared_photos),
    )
    manifest = run(made)
    found = dict(labels(tmp_path / "out", "events"))
    assert found["event000"] == (None, "1")  # red and blue, but one count
    assert found["event001"] == ("green", "2")  # a missing label contradicts nothing
    assert found["event002"] == ("blue", None)
    assert manifest.summary["events with several labels"] == {"species": 1, "count": 1}


def test_the_label_of_an_event_without_images_is_kept(
    model: Path, shared_photos: Path, tmp_path: Path
) -> None:
    rows = read_csv(shared_photos / "events.csv")
    nothing = dict.fromkeys(("image1", "image2", "image3"), "")
    rows[5] |= nothing
    table = write_csv(tmp_path / "events.csv", rows)
    run(by_csv(model, tmp_path / "out", shared_photos, table))
    require_labels_of(tmp_path / "out", labels_of_csv(table))


def test_a_column_of_metadata_does_not_become_a_label_later(
    model: Path, shared_photos: Path, tmp_path: Path
) -> None:
    made = by_csv(model, tmp_path / "out", shared_photos, shared_photos / "events.csv")
    run(made, head_columns=("species",))
    with pytest.raises(ConfigError, match=r"metadata columns site, .* count, site; choose another"):
        run(made, append=True)


def without_scoring(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from now on."""
    read: list[str] = []
    original = predict.source.prefetch_files

    def counting(uris: Sequence[str], n_threads: int | None) -> Any:
        read.extend(uris)
        return original(uris, n_threads)

    monkeypatch.setattr(predict.source, "prefetch_files", counting)
    return read


def changed_labels(table: Path) -> Path:
    """The csv with other labels for three events, a label gone, and one that was missing."""
    rows = read_csv(table)
    rows[4]["species"], rows[4]["count"] = "wolf", ""
    rows[9]["species"] = ""
    rows[2]["count"] = "2"
    return write_csv(table.with_name("changed.csv"), rows)


def answers(output: Path) -> dict[str, list[float] | None]:
    images = parquet.read_folder(str(output / "images")).to_pylist()
    return {row["image_id"]: row["probs_species"] for row in images}


def test_labels_that_have_changed_are_taken_over_without_scoring_again(
    model: Path, shared_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(shared_photos / "events.csv", tmp_path)
    made = by_csv(model, tmp_path / "out", shared_photos, tmp_path / "events.csv")
    run(made)
    before = answers(tmp_path / "out")
    new = changed_labels(tmp_path / "events.csv")
    with pytest.raises(ConfigError, match=r"0 new images, 0 replaced, .* 6 with other labels"):
        run(made, csv_uri=str(new))
    read = without_scoring(monkeypatch)
    run(made, csv_uri=str(new), append=True)
    assert read == []
    assert answers(tmp_path / "out") == before
    require_labels_of(tmp_path / "out", labels_of_csv(new))


def test_labels_that_come_later_are_taken_over_without_scoring_again(
    model: Path, shared_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A season is predicted before somebody labels it; and the labels of a season before stay."""
    rows = read_csv(shared_photos / "events.csv")
    bare = [{k: v for k, v in row.items() if k not in HEADS} for row in rows]
    unlabelled = write_csv(tmp_path / "first.csv", bare)
    made = by_csv(model, tmp_path / "out", shared_photos, unlabelled, head_columns=())
    run(made)
    before = answers(tmp_path / "out")
    read = without_scoring(monkeypatch)
    with pytest.raises(StoppedError):
        predict.run(
            made.replaced(
                csv_uri=str(shared_photos / "events.csv"), head_columns=HEADS, append=True
            ),
            executor=AtMost(2),
        )
    run(made, csv_uri=str(shared_photos / "events.csv"), head_columns=HEADS, append=True)
    assert read == []
    assert answers(tmp_path / "out") == before
    expected = labels_of_csv(shared_photos / "events.csv")
    require_labels_of(tmp_path / "out", expected)

    more = shared_photos / "images" / "later.jpg"
    more.write_bytes(photograph("red", seed=99))
    none = {"event": "empty", "image1": "", "image2": "", "image3": "", "site": "s"}
    later = write_csv(
        tmp_path / "later.csv",
        [none | {"event": "later", "image1": "images/later.jpg"}, none],
    )
    run(made, csv_uri=str(later), append=True)
    more.unlink()
    assert [Path(uri).name for uri in read] == ["later.jpg"]
    unlabelled = dict.fromkeys(("later", "empty"), (None, None))
    require_labels_of(tmp_path / "out", expected | unlabelled)


def test_no_label_metadata_or_failure_is_lost_or_made_up_whatever_the_units_and_the_kill(
    model: Path, shared_photos: Path, tmp_path: Path
) -> None:
    table = shared_photos / "events.csv"
    expected = Counter(labels_of_csv(table).values())
    sites = Counter(row["site"] for row in read_csv(table))
    for size in (1, 5, 1000):
        out = tmp_path / f"out{size}"
        made = by_csv(model, out, shared_photos, table, images_per_unit=size)
        if size < 1000:
            with pytest.raises(StoppedError):
                predict.run(made, executor=AtMost(2))
        run(made)
        assert Counter(label for _, label in labels(out, "events")) == expected
        events = parquet.read_folder(str(out / "events"))
        assert Counter(events["meta_site"].to_pylist()) == sites
        assert sum(events["n_failed"].to_pylist()) == 1
        failures = parquet.read_folder(str(out / "images"))["failure"].to_pylist()
        assert Counter(failures) == {None: 47, "missing": 1}
    assert bytes_below(tmp_path / "out1" / "images") != bytes_below(tmp_path / "out5" / "images")
    tables = [parquet.read_folder(str(tmp_path / f"out{n}" / "images")) for n in (1, 5, 1000)]
    assert all(isinstance(t, pa.Table) and t.equals(tables[0]) for t in tables)
