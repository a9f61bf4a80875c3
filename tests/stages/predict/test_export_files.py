"""Exported files are joined from parts: resumable, and in memory a few parts at a time."""

import csv
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders import bytes_below, photograph, untrained_bundle, write_events

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.event_counts import count_events
from ctc_ray.predictions.events import aggregate_by_event
from ctc_ray.predictions.scores import score_rows
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.layout import part_stem
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import image_fields
from ctc_ray.stages.predict import counts, export_files
from ctc_ray.stages.predict import stage as predict

ALL = ("table", "csv", "json")
FILES = ("predictions.csv", "predictions.json", "predictions_events.csv", "predictions_images.csv")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_bundle(tmp_path_factory.mktemp("untrained") / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """24 events, of which one has only missing images and two have no image."""
    path = write_events(tmp_path / "photos", n_events=24, broken=[3])
    with path.open("a") as file:
        file.write("none,,,,red,1,site9\nnothing,,,,,,site9\n")
    return path.parent


def config(model: Path, output: Path, photos: Path, **fields: object) -> PredictConfig:
    values = {
        "bundle_uri": str(model),
        "output_uri": str(output),
        "csv_uri": str(photos / "events.csv"),
        "event_column": "event",
        "image_columns": ("image1", "image2", "image3"),
        "head_columns": ("species",),
        "image_root_uri": str(photos),
        "images_per_unit": 7,
        "max_failure_fraction": 1.0,
        "export": ALL,
        **fields,
    }
    return PredictConfig.model_validate(values)


def run(made: PredictConfig, **fields: object) -> Manifest:
    return predict.run(made.replaced(**fields), executor=InProcess())


def test_every_event_and_every_image_is_in_every_file(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    run(config(model, tmp_path / "out", photos))
    events = parquet.read_folder(str(tmp_path / "out" / "events"))["capture_event_id"].to_pylist()
    images = parquet.read_folder(str(tmp_path / "out" / "images"))["image_uri"].to_pylist()

    def column(name: str, field: str) -> list[str]:
        with (tmp_path / "out" / name).open(newline="") as file:
            return [row[field] for row in csv.DictReader(file)]

    assert len(events) == 26
    assert column("predictions_events.csv", "event") == events
    assert column("predictions_images.csv", "file") == images
    assert column("predictions.csv", "id")[::2] == events
    assert list(json.loads((tmp_path / "out" / "predictions.json").read_text())) == events
    labels = dict(zip(events, column("predictions_events.csv", "species_label"), strict=True))
    assert (labels["event000"], labels["none"], labels["nothing"]) == ("red", "red", "")
    assert not (tmp_path / "out" / "_work" / "exports").exists()


class KilledError(Exception):
    """The process ends here."""


def killed_at(patch: pytest.MonkeyPatch, is_midway: Callable[[str], bool]) -> list[str]:
    """Have no file written from the first on that is midway; the files that are written."""
    original, written, is_dead = storage.operation, [], []

    def operation(name: str, uri: str, call: Callable[[], Any]) -> Any:
        if name in ("rename", "write", "create"):
            if is_dead or is_midway(uri):
                is_dead.append(uri)
                raise KilledError(uri)
            if name == "rename":
                written.append(uri)
        return original(name, uri, call)

    patch.setattr(storage, "operation", operation)
    return written


@pytest.mark.parametrize("midway", ["predictions.json", "predictions_images.csv", "_manifest.json"])
def test_a_run_killed_while_it_exports_ends_with_the_same_bytes_and_makes_no_part_again(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, midway: str
) -> None:
    made = config(model, tmp_path / "out", photos)
    with monkeypatch.context() as patch:
        killed_at(patch, lambda uri: uri.endswith(f"/{midway}"))
        with pytest.raises(KilledError):
            run(made)
    parts = sorted((tmp_path / "out" / "_work" / "exports").rglob("part-*"))
    n_units = len(list((tmp_path / "out" / "images").iterdir()))
    assert n_units > 5
    assert len(parts) == len(FILES) * n_units
    parts[0].unlink()  # one is lost, with those of its unit
    with monkeypatch.context() as patch:
        written = killed_at(patch, lambda uri: False)
        run(made)
    again = [uri for uri in written if "/_work/exports/" in uri]
    assert {uri.rpartition("/")[2] for uri in again} == {"part-00000"}
    assert len(again) == len(FILES)
    run(made, output_uri=str(tmp_path / "whole"))
    assert bytes_below(tmp_path / "out") == bytes_below(tmp_path / "whole")


def test_parts_of_answers_that_an_append_changes_are_made_again(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it exports, and again changed: no part of what was before is used."""
    made = config(model, tmp_path / "out", photos, batch_size=1)
    run(made)
    for number in (4, 13):
        path = photos / "images" / f"e{number:03d}_0.jpg"
        path.write_bytes(photograph("blue", seed=1000 + number))
        with monkeypatch.context() as patch:
            killed_at(patch, lambda uri: uri.endswith("/predictions.json"))
            with pytest.raises(KilledError):
                run(made, append=True)
    run(made, append=True)
    run(made, output_uri=str(tmp_path / "whole"))
    for name in ("predictions.csv", "predictions_events.csv", "predictions_images.csv"):
        found, expected = (
            sorted((tmp_path / folder / name).read_text().splitlines())
            for folder in ("out", "whole")
        )
        assert found == expected
    entries = [
        json.loads((tmp_path / folder / "predictions.json").read_text())
        for folder in ("out", "whole")
    ]
    assert entries[0] == entries[1]


@pytest.mark.s3
def test_an_object_store_gets_the_bytes_that_a_disk_gets(
    model: Path, photos: Path, tmp_path: Path, s3_bucket_uri: str
) -> None:
    made = config(model, tmp_path / "out", photos)
    run(made)
    run(made, output_uri=f"{s3_bucket_uri}/out")
    for name in FILES:
        assert (
            storage.read_bytes(f"{s3_bucket_uri}/out/{name}")
            == (tmp_path / "out" / name).read_bytes()
        )


LABELS = LabelSpace({"species": tuple(f"class {k:02d}" for k in range(20))})


def test_finished_predictions_get_further_files_and_nothing_is_scored_again(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config(model, tmp_path / "whole", photos))
    out = tmp_path / "out"
    made = run(config(model, out, photos), export=())
    assert not any((out / name).exists() for name in FILES)
    monkeypatch.setattr(predict, "run_units", None)
    assert run(config(model, out, photos), export=("csv",)) == made
    assert {name for name in FILES if (out / name).exists()} == {"predictions.csv"}
    (out / "predictions_images.csv").write_text("killed before it was written")
    run(config(model, out, photos))
    assert bytes_below(out) == bytes_below(tmp_path / "whole")
    assert [path.name for path in (out / "_work").iterdir()] == ["work.json"]


def test_predictions_that_grow_keep_their_files_up_to_date(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    """Also where the growing command does not name them."""
    csv_path = photos / "events.csv"
    whole = csv_path.read_text()
    csv_path.write_text("".join(whole.splitlines(keepends=True)[:9]))
    out = tmp_path / "out"
    run(config(model, out, photos), export=("table",))
    before = len((out / "predictions_images.csv").read_text().splitlines())
    csv_path.write_text(whole)
    made = run(config(model, out, photos), export=("json",), append=True)
    assert len((out / "predictions_images.csv").read_text().splitlines()) == made.rows_out + 1
    assert made.rows_out + 1 > before
    assert (out / "predictions.json").exists()
    run(config(model, out, photos), export=("csv",), append=True)
    assert len((out / "predictions.csv").read_text().splitlines()) > 9


def drawn_answers(folder: Path, n_units: int, n_rows: int, *, first: int = 0) -> list[Unit]:
    """Files of answers with these many rows each; every fifth image has failed."""
    rng, units = np.random.default_rng(0), []
    fields = [*image_fields(("site",)), pa.field("label_species", pa.string())]
    schema = pa.schema([*fields, pa.field("failure", pa.string())])
    for number in range(first, first + n_units):
        rows = pa.table(
            {
                "image_id": [f"{number:06d}{n:026d}" for n in range(n_rows)],
                "image_uri": [f"site/{number}/{n}.jpg" for n in range(n_rows)],
                "capture_event_id": [f"{number:06d} {n // 2:06d}" for n in range(n_rows)],
                "image_index": [n % 2 for n in range(n_rows)],
                "n_images": [2] * n_rows,
                "location_id": ["L"] * n_rows,
                "deployment_id": ["D"] * n_rows,
                "captured_at": pa.nulls(n_rows, pa.timestamp("us")),
                "meta_site": [f"site {n % 7}" for n in range(n_rows)],
                "label_species": LABELS.decode("species", rng.integers(0, 20, n_rows)),
                "failure": ["missing" if n % 5 == 4 else None for n in range(n_rows)],
            },
            schema,
        )
        n_ok = rows["failure"].null_count
        probs = rng.dirichlet(np.ones(20), n_ok).astype(np.float32)
        images = score_rows(rows, LABELS, {"species": probs})
        events = aggregate_by_event(images, LABELS, method="mean")
        name = f"images/{part_stem(number)}.parquet"
        parquet.write_table(str(folder / name), images)
        parquet.write_table(str(folder / f"events/{part_stem(number)}.parquet"), events)
        units.append(Unit(name, "", 0, n_rows))
    return units


def finished(folder: Path, units: list[Unit]) -> dict[str, Any]:
    export_files.write_exports(str(folder), [unit.name for unit in units], ALL, LABELS)
    found = count_events(parquet.list_tables(str(folder / "events")), LABELS)
    measured = counts.write_metrics(str(folder), LABELS, ["species"])
    return {"events": found.n_events, **found.tables(), **measured}


def test_the_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for n_units in (20, 60):
        folder = tmp_path / str(n_units)
        units = drawn_answers(folder, n_units, 60)
        tracemalloc.start()
        found = finished(folder, units)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found["events"] == n_units * 30
    assert peaks[1] < 1.5 * peaks[0]  # 16 parts are in the making


def test_beyond_99_999_units_the_order_of_names_is_that_of_the_numbers(tmp_path: Path) -> None:
    """Programs that read a folder sort names; so do exports, and what people see of them."""
    units = drawn_answers(tmp_path, 4, 6, first=99_998)
    names = [unit.name for unit in units]
    assert names == sorted(names)
    uris = storage.list_files(str(tmp_path / "images"))
    assert [Path(uri).name for uri in uris] == [Path(name).name for name in names]
    finished(tmp_path, units)
    images = parquet.read_folder(str(tmp_path / "images"))
    with (tmp_path / "predictions_images.csv").open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == images["image_uri"].to_pylist()
