"""`ctc predict --append`: the answers of a source that has changed are those of a new run."""

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import (
    AtMost,
    StoppedError,
    bytes_below,
    dataset_in_process,
    inventory_config,
    photograph,
    taken_at,
    untrained_bundle,
    write_events,
)

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.config.show import ShowConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import Manifest, is_complete
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.show import stage as show


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_bundle(tmp_path_factory.mktemp("untrained") / "model")


def put(folder: Path, name: str, *, seed: int, species: str = "red") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    taken = taken_at(photograph(species, seed=seed), f"2024:05:01 10:00:{seed % 60:02d}")
    (folder / name).write_bytes(taken)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """40 images in 8 folders; those of a folder are an event."""
    for number in range(40):
        put(tmp_path / "photos", f"{number % 8}/{number:03d}.jpg", seed=number)
    return tmp_path / "photos"


def config(model: Path, output: Path, **fields: object) -> PredictConfig:
    values = {
        "bundle_uri": str(model),
        "output_uri": str(output),
        "batch_size": 1,  # an answer does not depend on the images beside it
        "images_per_unit": 12,
        "max_failure_fraction": 1.0,
        "export": ("csv", "json"),
        **fields,
    }
    return PredictConfig.model_validate(values)


def run(made: PredictConfig, **fields: object) -> Manifest:
    return predict.run(made.replaced(**fields), executor=InProcess())


def rows(output: Path, folder: str) -> dict[Any, dict[str, Any]]:
    found = parquet.read_folder(str(output / folder)).to_pylist()
    name = "image_id" if folder == "images" else "capture_event_id"
    by_name = {row[name]: row for row in found}
    assert len(by_name) == len(found)
    return by_name


def require_equal_answers(output: Path, whole: Path) -> None:
    for folder in ("images", "events"):
        assert rows(output, folder) == rows(whole, folder)
    found, expected = (
        sorted((o / "predictions.csv").read_text().splitlines()) for o in (output, whole)
    )
    assert found == expected
    images = parquet.read_folder(str(output / "images"))["capture_event_id"].to_pylist()
    runs = [a for a, b in zip(images, [None, *images], strict=False) if a != b]
    assert len(runs) == len(set(runs))  # images of an event are neighbours
    for name in (path.name for path in (output / "images").iterdir()):
        ids = parquet.read_table(str(output / "images" / name))["capture_event_id"].to_pylist()
        events = parquet.read_table(str(output / "events" / name))["capture_event_id"].to_pylist()
        assert list(dict.fromkeys(ids)) == events


def change(photos: Path) -> None:
    """8 events: one gains an image, one has one replaced, one is new."""
    put(photos, "2/958.jpg", seed=958)
    put(photos, "5/005.jpg", seed=905, species="green")
    put(photos, "new/902.jpg", seed=902)


def test_new_and_replaced_files_are_answered_as_by_a_new_run(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    made = config(model, tmp_path / "out", images_uri=str(photos))
    run(made)
    before = rows(tmp_path / "out", "images")
    change(photos)
    with pytest.raises(ConfigError, match=r"2 new images, 1 replaced, 0 gone.*--append"):
        run(made)
    manifest = run(made, append=True)
    assert (manifest.rows_in, manifest.rows_out) == (42, 42)
    whole = run(config(model, tmp_path / "whole", images_uri=str(photos)))
    assert manifest.model_copy(update={"made_at": ""}) == whole.model_copy(update={"made_at": ""})
    require_equal_answers(tmp_path / "out", tmp_path / "whole")
    changed = [i for i, row in rows(tmp_path / "out", "images").items() if before.get(i) != row]
    assert len(changed) == 2 + 1 + 5  # an event that has gained an image counts all of its images
    assert run(made) == run(made, append=True) == manifest


def test_what_is_the_same_is_not_read_again(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(model, tmp_path / "out", images_uri=str(photos))
    run(made)
    change(photos)
    read: list[str] = []
    original = predict.source.prefetch_files

    def counting(uris: Sequence[str], n_threads: int | None) -> Any:
        read.extend(Path(uri).name for uri in uris)
        return original(uris, n_threads)

    monkeypatch.setattr(predict.source, "prefetch_files", counting)
    run(made, append=True)
    assert sorted(read) == ["005.jpg", "902.jpg", "958.jpg"]
    run(made, append=True)
    assert len(read) == 3


def test_an_append_that_was_killed_goes_on_with_what_there_is_then(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    made = config(model, tmp_path / "out", images_uri=str(photos), images_per_unit=4)
    run(made)
    for number in range(30):
        put(photos, f"{number % 10}/{1000 + number}.jpg", seed=1000 + number)
    with pytest.raises(StoppedError):
        predict.run(made.replaced(append=True), executor=AtMost(3))
    assert not is_complete(str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="an append is not finished"):
        run(made)
    for number in range(10):
        put(photos, f"{number % 3}/{2000 + number}.jpg", seed=2000 + number)
    manifest = run(made, append=True)
    assert manifest.rows_out == 80
    run(config(model, tmp_path / "whole", images_uri=str(photos)))
    require_equal_answers(tmp_path / "out", tmp_path / "whole")


def test_a_run_that_was_killed_goes_on_although_there_are_new_files(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    made = config(model, tmp_path / "out", images_uri=str(photos), images_per_unit=4)
    with pytest.raises(StoppedError):
        predict.run(made, executor=AtMost(3))
    change(photos)
    with pytest.raises(ConfigError, match="the source has changed since this was begun"):
        run(made)
    run(made, append=True)
    run(config(model, tmp_path / "whole", images_uri=str(photos)))
    require_equal_answers(tmp_path / "out", tmp_path / "whole")


def test_append_begins_where_there_is_nothing(model: Path, photos: Path, tmp_path: Path) -> None:
    run(config(model, tmp_path / "out", images_uri=str(photos), append=True))
    run(config(model, tmp_path / "whole", images_uri=str(photos)))
    assert bytes_below(tmp_path / "out" / "images") == bytes_below(tmp_path / "whole" / "images")


def test_answers_of_files_that_are_gone_are_kept(model: Path, photos: Path, tmp_path: Path) -> None:
    """Also where their event is answered again, for another image."""
    made = config(model, tmp_path / "out", images_uri=str(photos))
    run(made)
    whole = config(model, tmp_path / "whole", images_uri=str(photos))
    put(photos, "3/950.jpg", seed=950)
    run(whole)
    (photos / "3" / "011.jpg").unlink()
    (photos / "6" / "014.jpg").unlink()
    manifest = run(made, append=True)
    assert manifest.rows_out == 41
    for folder in ("images", "events"):
        found, expected = rows(tmp_path / "out", folder), rows(tmp_path / "whole", folder)
        for row in (*found.values(), *expected.values()):
            row.pop("image_index", None)  # a file that is gone has lost its place
        assert found == expected


def test_files_that_were_missing_are_read_when_they_are_there(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "events.csv"
    names = [str(path.relative_to(photos)) for path in sorted(photos.rglob("*.jpg"))]
    write(table, [[f"e{n // 3}", name] for n, name in enumerate(names)])
    shutil.move(photos / names[4], tmp_path / "aside.jpg")
    made = config(
        model,
        tmp_path / "out",
        csv_uri=str(table),
        event_column="event",
        image_columns=("image",),
        image_root_uri=str(photos),
    )
    assert run(made).failures == {"missing": 1}
    shutil.move(tmp_path / "aside.jpg", photos / names[4])
    with pytest.raises(ConfigError, match="0 new images, 1 replaced"):
        run(made)
    assert run(made, append=True).failures == {}
    run(made, output_uri=str(tmp_path / "whole"))
    require_equal_answers(tmp_path / "out", tmp_path / "whole")


def write(path: Path, lines: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["event", "image"], *lines])


def test_rows_of_a_csv_move_to_other_events_and_events_lose_and_gain_images(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    names = [str(path.relative_to(photos)) for path in sorted(photos.rglob("*.jpg"))]
    first = [[f"e{n // 3}", name] for n, name in enumerate(names)] + [["empty", ""], ["later", ""]]
    write(tmp_path / "first.csv", first)
    fields = {
        "event_column": "event",
        "image_columns": ("image",),
        "image_root_uri": str(photos),
    }
    made = config(model, tmp_path / "out", csv_uri=str(tmp_path / "first.csv"), **fields)
    run(made)
    second = [["moved" if n in (4, 30) else f"e{n // 3}", name] for n, name in enumerate(names)]
    put(photos, "later.jpg", seed=77)
    second += [["empty", ""], ["later", "later.jpg"], ["also empty", ""]]
    write(tmp_path / "second.csv", sorted(second))
    changed = str(tmp_path / "second.csv")
    manifest = run(made, append=True, csv_uri=changed)
    whole = run(made, output_uri=str(tmp_path / "whole"), csv_uri=changed)
    assert manifest.rows_out == whole.rows_out == 41
    assert manifest.summary["events"] == whole.summary["events"]
    for folder in ("images", "events"):
        assert rows(tmp_path / "out", folder) == rows(tmp_path / "whole", folder)


def test_other_settings_are_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    made = config(model, tmp_path / "out", images_uri=str(photos))
    run(made)
    with pytest.raises(ConfigError, match=r"other settings.*aggregation"):
        run(made, append=True, aggregation="max")
    with pytest.raises(ConfigError, match=r"other settings.*images_uri"):
        run(made, append=True, images_uri=str(tmp_path))
    with pytest.raises(ValueError, match="--append keeps what --overwrite deletes"):
        config(model, tmp_path / "out", images_uri=str(photos), append=True, overwrite=True)


def test_a_file_that_was_only_touched_is_new(model: Path, photos: Path, tmp_path: Path) -> None:
    """Reading it again is cheap, an old answer for a new photograph is wrong."""
    made = config(model, tmp_path / "out", images_uri=str(photos))
    run(made)
    os.utime(photos / "1" / "001.jpg", ns=(1, 1))
    with pytest.raises(ConfigError, match="1 replaced"):
        run(made)


def test_answers_without_noted_versions_are_kept(model: Path, photos: Path, tmp_path: Path) -> None:
    made = config(model, tmp_path / "out", images_uri=str(photos))
    run(made)
    shutil.rmtree(tmp_path / "out" / "_versions")
    change(photos)
    assert run(made, append=True).rows_out == 42
    run(config(model, tmp_path / "whole", images_uri=str(photos)))
    found, expected = (rows(tmp_path / name, "images") for name in ("out", "whole"))
    differ = [row["image_uri"][-7:] for i, row in expected.items() if found[i] != row]
    assert differ == ["005.jpg"]  # nothing tells that it was replaced


def test_files_of_other_programs_among_the_answers_do_no_harm(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    made = config(model, tmp_path / "out", images_uri=str(photos))
    run(made)
    for folder in ("images", "events", "_versions"):
        (tmp_path / "out" / folder / ".DS_Store").write_bytes(b"x")
        (tmp_path / "out" / folder / "part-3 (copy).parquet").write_bytes(b"x")
    (tmp_path / "out" / "_versions" / f".part-00003.parquet.{'4' * 32}-270f28cc").write_bytes(b"x")
    change(photos)
    for folder in ("images", "events"):  # readers of the whole folder would take it for answers
        (tmp_path / "out" / folder / "part-3 (copy).parquet").unlink()
    assert run(made, append=True).rows_out == 42


def test_images_of_another_dataset_are_answered_again(model: Path, tmp_path: Path) -> None:
    csv_path = write_events(tmp_path / "photos", n_events=12, broken=(3,))
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    inputs = (tmp_path / "inventory", tmp_path / "photos")
    dataset_in_process(*inputs, tmp_path / "first")
    made = config(model, tmp_path / "out", dataset_uri=str(tmp_path / "first"), export=())
    assert run(made).failures == {"missing": 1}
    (tmp_path / "photos" / "images" / "e003_0.jpg").write_bytes(photograph("red", seed=30))
    (tmp_path / "photos" / "images" / "e004_0.jpg").write_bytes(photograph("blue", seed=99))
    dataset_in_process(*inputs, tmp_path / "second")
    second = str(tmp_path / "second")
    assert run(made, append=True, dataset_uri=second).failures == {}
    run(made, output_uri=str(tmp_path / "whole"), dataset_uri=second)
    for folder in ("images", "events"):
        assert rows(tmp_path / "out", folder) == rows(tmp_path / "whole", folder)
    assert run(made, dataset_uri=second).failures == {}  # nothing has changed since


def by_csv(model: Path, output: Path, photos: Path, table: Path) -> PredictConfig:
    return config(
        model,
        output,
        csv_uri=str(table),
        event_column="event",
        image_columns=("image",),
        image_root_uri=str(photos),
    )


def test_an_event_that_loses_its_images_has_one_answer(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "events.csv"
    write(table, [["e0", "0/000.jpg"], ["e1", "1/001.jpg"], ["e2", "2/002.jpg"]])
    made = by_csv(model, tmp_path / "out", photos, table)
    run(made)
    write(table, [["e0", "0/000.jpg"], ["e1", ""], ["e2", "2/002.jpg"]])
    assert run(made, append=True).summary["events"] == 3
    assert {e: row["n_images"] for e, row in rows(tmp_path / "out", "events").items()} == {
        "e0": 1, "e1": 1, "e2": 1,
    }  # fmt: skip


def test_a_file_that_cannot_be_read_is_no_change(model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "folder.jpg").mkdir()
    (photos / "loop").symlink_to("loop")
    names = ["0/000.jpg", "folder.jpg", "loop/a.jpg", f"{'x' * 300}/a.jpg", "https://x.org/a.jpg"]
    write(tmp_path / "events.csv", [[f"e{n}", name] for n, name in enumerate(names)])
    made = by_csv(model, tmp_path / "out", photos, tmp_path / "events.csv")
    first = run(made)
    assert sum(first.failures.values()) == 4
    assert run(made) == first
    assert run(made, append=True) == first


def test_a_file_that_is_away_keeps_its_answer(model: Path, photos: Path, tmp_path: Path) -> None:
    """A csv that names it says nothing about a disk that is not there."""
    names = [str(path.relative_to(photos)) for path in sorted(photos.rglob("*.jpg"))]
    table = tmp_path / "events.csv"
    write(table, [[f"e{n // 2}", name] for n, name in enumerate(names)])
    made = by_csv(model, tmp_path / "out", photos, table)
    run(made)
    before = rows(tmp_path / "out", "images")
    for name in names[:6]:
        (photos / name).unlink()
    put(photos, "new.jpg", seed=5)
    new = [f"e{n // 2}" for n in range(len(names))]
    write(table, [*zip(new, names, strict=True), ["e0", "new.jpg"]])
    with pytest.raises(ConfigError, match="1 new images, 0 replaced, 6 gone"):
        run(made)
    assert run(made, append=True).failures == {}
    after = rows(tmp_path / "out", "images")
    for image, row in before.items():
        assert after[image]["probs_species"] == row["probs_species"]


def test_versions_that_were_not_noted_stay_unknown(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    made = config(model, tmp_path / "out", images_uri=str(photos))
    run(made)
    shutil.rmtree(tmp_path / "out" / "_versions")
    put(photos, "2/958.jpg", seed=958)
    assert run(made, append=True).rows_out == 41
    assert run(made).rows_out == 41  # it does not take the five neighbours for replaced


def test_events_without_images_are_not_doubled_by_a_kill(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "events.csv"
    write(table, [["e0", "0/000.jpg"], ["x", ""], ["y", ""]])
    made = by_csv(model, tmp_path / "out", photos, table)
    run(made)
    write(table, [["e0", "0/000.jpg"], ["y", ""], ["e1", "1/001.jpg"]])
    with monkeypatch.context() as patch:
        delete = storage.delete_file

        def killed(uri: str) -> None:
            if "/events/" in uri:
                raise StoppedError
            delete(uri)

        patch.setattr(storage, "delete_file", killed)
        with pytest.raises(StoppedError):
            run(made, append=True)
    assert run(made, append=True).summary["events"] == 4
    assert set(rows(tmp_path / "out", "events")) == {"e0", "e1", "x", "y"}


def test_an_append_that_is_not_finished_is_shown_as_one(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    made = config(model, tmp_path / "out", images_uri=str(photos), images_per_unit=4)
    run(made)
    for number in range(8):
        put(photos, f"{number}/{1000 + number}.jpg", seed=1000 + number)
    with pytest.raises(StoppedError):
        predict.run(made.replaced(append=True), executor=AtMost(1))
    shown = dict(show.run(ShowConfig(uri=str(tmp_path / "out"))).facts)
    assert "with --append" in shown["not finished"]
    assert " of " not in shown["files there"]
