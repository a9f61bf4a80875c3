import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from builders import AtMost, StoppedError, bytes_below
from finished_predictions import (
    LABELS,
    META,
    NOON,
    Image,
    by_hand,
    random_images,
    write_predictions,
)

from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.config.show import ShowConfig
from ctc_ray.errors import ConfigError, IncompleteDataError
from ctc_ray.files import parquet
from ctc_ray.inventory.sources.gap_events import group_by_gap
from ctc_ray.predictions.events import aggregate_by_event, without_images
from ctc_ray.runs.executor import InProcess, InThreads
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import FINDINGS_FILE, inventory_schema
from ctc_ray.stages.aggregate import stage as aggregate
from ctc_ray.stages.aggregate.ray_shuffle import RayShuffle
from ctc_ray.stages.show import stage as show

N_EVENTS = 300
IMAGES = random_images(1, N_EVENTS)
HEADS = LABELS.heads


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 1,000 images in files of 20; of the inventory's events, each in one file."""
    return write_predictions(
        tmp_path_factory.mktemp("predictions") / "p", IMAGES, images_per_file=20
    )


def run(predictions: Path, output: Path, **fields: Any) -> pa.Table:
    """The events, in the order of their ids."""
    executor = fields.pop("executor", None)
    config = aggregate_config(predictions, output, **fields)
    made = aggregate.run(config, executor=executor)
    events = parquet.read_folder(str(output / "events"))
    assert made == read_manifest(str(output), "events")
    assert made.rows_in == made.rows_out == pc.sum(events["n_images"]).as_py()
    assert made.summary["events"] == events.num_rows == len(pc.unique(events["capture_event_id"]))
    return events.sort_by("capture_event_id")


def aggregate_config(predictions: Path, output: Path, **fields: Any) -> AggregateConfig:
    values = {
        "predictions_uri": str(predictions),
        "output_uri": str(output),
        "images_per_unit": 50,
        **fields,
    }
    return AggregateConfig.model_validate(values)


def write_inventory(folder: Path, images: Sequence[Image]) -> Path:
    """The images, sorted by event, as `ctc create-inventory` writes them."""
    rows = [{k: v for k, v in i.items() if k not in ("probs", "failure")} for i in images]
    rows.sort(key=lambda row: (row["capture_event_id"], row["image_index"]))
    table = pa.Table.from_pylist(rows, inventory_schema((), META))
    for number, start in enumerate(range(0, len(rows), 100)):
        uri = str(folder / f"part-{number:05d}.parquet")
        parquet.write_table(uri, table.slice(start, 100))
    Manifest(kind="inventory", config={}, meta=META, rows_in=len(rows), rows_out=len(rows)).write(
        str(folder)
    )
    return folder


def in_other_events(images: Sequence[Image], *, n_events: int, seed: int) -> list[dict[str, Any]]:
    """The images, each in one of so many events at random; places of their own."""
    draw = random.Random(seed)
    events = [draw.randrange(n_events) for _ in images]
    counts: dict[int, int] = {}
    found = []
    for image, event in zip(images, events, strict=True):
        index = counts[event] = counts.get(event, -1) + 1
        found.append(
            {
                **image,
                "image_id": image["image_id"][::-1],  # of another event, so another hash
                "capture_event_id": f"neu {event:04d}",
                "image_index": index,
                "location_id": f"Stelle {event % 7}",
            }
        )
    return found


def require_as_by_hand(
    events: pa.Table, expected: dict[Any, dict[str, Any]], names: Sequence[str] = ()
) -> None:
    """Every event of the oracle is there, and equal to it.

    Args:
        names: further columns to compare, of the first image.
    """
    assert events.num_rows == len(expected)
    for row in events.to_pylist():
        answer = expected[row["capture_event_id"]]
        same = ["n_images", "n_failed", *names, *(f"pred_{head}" for head in HEADS)]
        assert {name: row[name] for name in same} == {name: answer[name] for name in same}
        for head in HEADS:
            probs, wanted = row[f"probs_{head}"], answer[f"probs_{head}"]
            assert probs == (wanted and pytest.approx(wanted, abs=1e-6))


PLACE = ("location_id", "deployment_id", "captured_at", "meta_saison", "meta_ä ö")


# -- the events of the predictions -----------------------------------------------------------------


def test_the_same_method_gives_the_events_of_predict_to_the_last_bit(
    predictions: Path, tmp_path: Path
) -> None:
    events = run(predictions, tmp_path / "out")
    theirs = parquet.read_folder(str(predictions / "events")).sort_by("capture_event_id")
    assert events.equals(theirs)
    expected = by_hand(IMAGES, lambda i: i["capture_event_id"], order=lambda i: i["image_index"])
    require_as_by_hand(events, expected, PLACE)


@pytest.mark.parametrize("fields", [{"aggregation": "vote"}, {"renormalize": True, "top_k": 2}])
def test_another_method_gives_what_predict_would_have_given(
    predictions: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    events = run(predictions, tmp_path / "out", **fields)
    images = parquet.read_folder(str(predictions / "images"))
    method = fields.pop("aggregation", "mean")
    whole = aggregate_by_event(images, LABELS, method=method, **fields)
    assert events.equals(whole.sort_by("capture_event_id"))


def test_events_without_images_keep_their_rows(predictions: Path, tmp_path: Path) -> None:
    folder = write_predictions(tmp_path / "p", IMAGES, images_per_file=200)
    empty = without_images(
        pa.table({"capture_event_id": ["leer"], **{f"meta_{name}": ["x"] for name in META}}), LABELS
    )
    parquet.write_table(str(folder / "events" / "part-00099.parquet"), empty)
    events = run(folder, tmp_path / "out", top_k=1)
    row = events.filter(pc.equal(events["capture_event_id"], "leer")).to_pylist()[0]
    assert (row["n_images"], row["meta_saison"], row["top_species"]) == (0, "x", None)


@pytest.mark.parametrize("others", [False, True])
def test_labels_travel_into_the_events_also_where_a_file_has_none(
    predictions: Path, tmp_path: Path, *, others: bool
) -> None:
    """The label of an event is that of its images if they agree; files of 20 rows, one older."""
    labelled, draw = tmp_path / "p", random.Random(7)
    shutil.copytree(predictions, labelled)
    of_image: dict[str, str | None] = {}
    for number, path in enumerate(sorted((labelled / "images").iterdir())):
        rows = pq.ParquetFile(path).read()
        known = [*LABELS.classes["species"], "Ardea"]
        labels = [
            draw.choice(known) if draw.random() < 0.25 else None for _ in range(rows.num_rows)
        ]
        if number != 3:
            of_image |= dict(zip(rows["image_uri"].to_pylist(), labels, strict=True))
            column = pa.array(labels, pa.string())
            pq.write_table(rows.append_column("label_species", column), path)
    images: Sequence[Image] = IMAGES
    fields: dict[str, Any] = {}
    if others:
        images = in_other_events(IMAGES, n_events=150, seed=3)
        fields = {"events_uri": str(write_inventory(tmp_path / "i", images))}
    events = run(labelled, tmp_path / "out", **fields)
    expected: dict[str, set[str]] = {}
    for image in images:
        label = of_image.get(image["image_uri"])
        expected.setdefault(image["capture_event_id"], set()).update({label} if label else ())
    found = dict(
        zip(
            events["capture_event_id"].to_pylist(),
            events["label_species"].to_pylist(),
            strict=True,
        )
    )
    assert found == {k: v.pop() if len(v) == 1 else None for k, v in expected.items()}
    assert len(set(found.values())) > 3
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(metrics["events"]) == {"species"}
    rows = events.filter(pc.is_valid(events["pred_species"]))["label_species"].to_pylist()
    unknown = rows.count("Ardea")  # an event without a prediction counts as failed
    assert metrics["events"]["species"]["n_unknown_label"] == unknown > 0


# -- other events ----------------------------------------------------------------------------------


def test_an_inventory_with_the_same_events_changes_no_bit(
    predictions: Path, tmp_path: Path
) -> None:
    inventory = write_inventory(tmp_path / "i", IMAGES)
    events = run(predictions, tmp_path / "out", events_uri=str(inventory))
    assert events.equals(run(predictions, tmp_path / "whole"))


def test_events_over_the_bounds_of_files_are_answered_as_by_hand(
    predictions: Path, tmp_path: Path
) -> None:
    others = in_other_events(IMAGES, n_events=60, seed=3)
    inventory = write_inventory(tmp_path / "i", others)
    events = run(predictions, tmp_path / "out", events_uri=str(inventory))
    expected = by_hand(others, lambda i: i["capture_event_id"], order=lambda i: i["image_index"])
    require_as_by_hand(events, expected, PLACE)


def test_moved_and_whole_events_are_equal_bit_for_bit(predictions: Path, tmp_path: Path) -> None:
    """The images of other events, in files of these events: there nothing is moved."""
    others = in_other_events(IMAGES, n_events=60, seed=3)
    inventory = write_inventory(tmp_path / "i", others)
    moved = run(
        predictions, tmp_path / "moved", events_uri=str(inventory), aggregation="mean-logit"
    )
    others.sort(key=lambda image: (image["capture_event_id"], image["image_index"]))
    sorted_folder = write_predictions(tmp_path / "p", others, images_per_file=30)
    whole = run(sorted_folder, tmp_path / "whole", aggregation="mean-logit")
    assert moved.equals(whole)


@pytest.mark.parametrize("fields", [{"event_gap_s": 120}, {"by": ["location", "day"]}])
def test_neither_files_nor_units_nor_the_executor_change_a_bit(
    predictions: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    fields["aggregation"] = "geometric-mean"
    one = run(predictions, tmp_path / "one", images_per_unit=10_000, **fields)
    for number, (per_file, per_unit) in enumerate([(7, 1), (7, 60), (400, 90)]):
        draw = random.Random(number)
        by_event: dict[str, list[Image]] = {}
        for image in IMAGES:
            by_event.setdefault(image["capture_event_id"], []).append(image)
        names = draw.sample(sorted(by_event), len(by_event))
        shuffled = [image for name in names for image in by_event[name]]
        folder = write_predictions(tmp_path / f"p{number}", shuffled, images_per_file=per_file)
        executor = InProcess() if number else InThreads(3)
        other = run(
            folder, tmp_path / f"o{number}", images_per_unit=per_unit, executor=executor, **fields
        )
        assert other.equals(one)


def test_images_of_a_location_and_day_are_one_event(predictions: Path, tmp_path: Path) -> None:
    def event_of(image: Image) -> str:
        place = (image["location_id"] or "?").replace("|", "\\|")
        return f"{place}|{image['captured_at'].date() if image['captured_at'] else '?'}"

    def order(image: Image) -> Any:
        return (image["captured_at"] is None, image["captured_at"] or NOON, image["image_uri"])

    events = run(predictions, tmp_path / "out", by=["location", "day"])
    require_as_by_hand(events, by_hand(IMAGES, event_of, order=order), PLACE)
    assert max(events["n_images"].to_pylist()) > 50


def test_fields_of_metadata_make_events(predictions: Path, tmp_path: Path) -> None:
    events = run(predictions, tmp_path / "out", by=["meta_saison", "deployment"])
    cameras = {None: "?", **{f"cam?{n}": f"cam\\?{n}" for n in range(9)}}
    ids = {f"{i['meta_saison'] or '?'}|{cameras[i['deployment_id']]}" for i in IMAGES}
    assert set(events["capture_event_id"].to_pylist()) == ids


def test_gaps_make_the_events_that_create_inventory_makes(
    predictions: Path, tmp_path: Path
) -> None:
    events = run(predictions, tmp_path / "out", event_gap_s=120)
    cameras = [
        "\x1f".join(filter(None, [i["location_id"], i["deployment_id"]])) or None for i in IMAGES
    ]
    grouped = group_by_gap(
        pa.array([i["image_uri"] for i in IMAGES], pa.large_string()),
        pa.array([i["captured_at"] for i in IMAGES], pa.timestamp("us")),
        pa.array(cameras, pa.large_string()),
        gap_s=120,
    )
    new = dict(zip(grouped.order.tolist(), grouped.event_ids.to_pylist(), strict=True))
    rank = {row: at for at, row in enumerate(grouped.order.tolist())}
    by_uri = {image["image_uri"]: row for row, image in enumerate(IMAGES)}
    expected = by_hand(
        IMAGES,
        lambda i: new[by_uri[i["image_uri"]]],
        order=lambda i: rank[by_uri[i["image_uri"]]],
    )
    require_as_by_hand(events, expected, PLACE)
    assert events.num_rows != N_EVENTS  # not the events that were there


def test_images_that_only_one_side_knows_are_counted_and_named(
    predictions: Path, tmp_path: Path
) -> None:
    others = in_other_events(IMAGES, n_events=60, seed=3)
    unpredicted = [
        {**image, "image_uri": f"neu/{n}.jpg", "image_id": f"f{n:031x}", "image_index": 100 + n}
        for n, image in enumerate(others[:40])
    ]
    lonely = {**others[0], "image_uri": "allein.jpg", "image_id": "e" * 32, "image_index": 0}
    unpredicted.append({**lonely, "capture_event_id": "zz nur dieses"})
    kept = others[25:]
    inventory = write_inventory(tmp_path / "i", [*kept, *unpredicted])
    events = run(predictions, tmp_path / "out", events_uri=str(inventory))
    known = [*kept, *({**image, "probs": None} for image in unpredicted)]
    expected = by_hand(known, lambda i: i["capture_event_id"], order=lambda i: i["image_index"])
    require_as_by_hand(events, expected)
    made = read_manifest(str(tmp_path / "out"), "events")
    assert made.rows_in == len(kept) + 41
    assert made.findings == {"images_without_prediction": 41, "predictions_of_other_images": 25}
    assert made.failures == {"missing": sum(i["failure"] is not None for i in kept)}
    found = parquet.read_table(str(tmp_path / "out" / FINDINGS_FILE)).to_pylist()
    gone = [row["row"] for row in found if row["kind"] == "predictions_of_other_images"]
    assert sorted(gone) == sorted(image["image_uri"] for image in others[:25])


def test_an_image_of_two_events_is_in_both_and_one_that_is_there_twice_counts_once(
    tmp_path: Path,
) -> None:
    image = {**IMAGES[0], "captured_at": NOON, "n_images": 1}
    again = {**image, "capture_event_id": "zwei", "image_id": "b" * 32}
    folder = write_predictions(tmp_path / "p", [image, again], images_per_file=1)
    (event,) = run(folder, tmp_path / "day", by=["day"]).to_pylist()
    assert (event["capture_event_id"], event["n_images"]) == ("2021-04-11", 1)
    named = [{**image, "capture_event_id": name, "image_id": name * 32} for name in "xy"]
    inventory = write_inventory(tmp_path / "i", named)
    events = run(folder, tmp_path / "both", events_uri=str(inventory))
    assert events["capture_event_id"].to_pylist() == ["x", "y"]
    assert read_manifest(str(tmp_path / "both")).findings == {}


# -- a run and its life ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_units", [1, 10, 20, 30])
@pytest.mark.parametrize("fields", [{}, {"by": ["location", "day"]}])
def test_a_stopped_run_resumes_with_the_same_bytes(
    predictions: Path, tmp_path: Path, fields: dict[str, Any], n_units: int
) -> None:
    run(predictions, tmp_path / "whole", **fields)
    config = aggregate_config(predictions, tmp_path / "out", **fields)
    n_stopped = 0
    while not (tmp_path / "out" / "_manifest.json").exists():
        try:
            aggregate.run(config, executor=AtMost(n_units))
        except StoppedError:
            n_stopped += 1
    assert n_stopped >= 20 // n_units
    assert bytes_below(tmp_path / "out") == bytes_below(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "out" / "_work").iterdir()} == {"work.json"}


@pytest.mark.s3
def test_a_store_holds_the_same_events(
    predictions: Path, tmp_path: Path, s3_bucket_uri: str
) -> None:
    events = run(predictions, tmp_path / "out", by=["location", "day"], images_per_unit=300)
    config = aggregate_config(predictions, tmp_path, by=["location", "day"], images_per_unit=300)
    aggregate.run(config.replaced(output_uri=f"{s3_bucket_uri}/out"))
    there = parquet.read_folder(f"{s3_bucket_uri}/out/events")
    assert there.sort_by("capture_event_id").equals(events)


def test_it_is_shown_like_any_folder(predictions: Path, tmp_path: Path) -> None:
    run(predictions, tmp_path / "out")
    with pytest.raises(StoppedError):
        aggregate.run(aggregate_config(predictions, tmp_path / "half"), executor=AtMost(3))
    half = show.run(ShowConfig(uri=str(tmp_path / "half")))
    assert ("files there", "3") in half.facts
    shown = show.run(ShowConfig(uri=str(tmp_path / "out")))
    assert shown.values["kind"] == "events"
    assert ("written by", "ctc aggregate, version 0.1.0") in shown.facts


def test_what_cannot_be_is_said_in_one_line_before_anything_is_written(
    predictions: Path, tmp_path: Path
) -> None:
    def refused(message: str, **fields: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            aggregate.run(aggregate_config(predictions, tmp_path / "out", **fields))
        assert not (tmp_path / "out").exists()

    refused("--by: .* no field 'site'; fields are location, deployment, day, meta_saison, meta_ä ö",
            by=["site"])  # fmt: skip
    foreign = [{**image, "image_uri": f"x{n}", "image_id": f"c{n:031x}"}
               for n, image in enumerate(IMAGES[:9])]  # fmt: skip
    inventory = write_inventory(tmp_path / "i", foreign)
    refused("--events-uri: no image of .* is in .*; the first are x", events_uri=str(inventory))
    timeless = [{**image, "captured_at": None} for image in IMAGES]
    predictions = write_predictions(tmp_path / "p", timeless, images_per_file=100)
    refused("--event-gap-s: no image of .* has a time", event_gap_s=60)
    refused("--by day: no image of .* has a time", by=["location", "day"])
    with pytest.raises(IncompleteDataError, match="no finished predictions"):
        aggregate.run(aggregate_config(tmp_path / "none", tmp_path / "out"))


def test_another_method_needs_another_folder(predictions: Path, tmp_path: Path) -> None:
    run(predictions, tmp_path / "out")
    config = aggregate_config(predictions, tmp_path / "out", aggregation="max")
    with pytest.raises(ConfigError, match="aggregation"):
        aggregate.run(config)
    aggregate.run(config.replaced(overwrite=True))
    assert read_manifest(str(tmp_path / "out")).config["aggregation"] == "max"


@pytest.fixture
def shuffled_parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """This process believes to be on a cluster; how many parts each shuffle of Ray has."""
    shuffle, n_parts = RayShuffle.run, list[int]()

    def run(self: RayShuffle, units: Sequence[Unit], parts: Sequence[Unit]) -> Iterator[int]:
        n_parts.append(len(parts))
        return shuffle(self, units, parts)

    monkeypatch.setattr(RayShuffle, "run", run)
    monkeypatch.setattr(aggregate, "is_on_cluster", lambda: True)
    return n_parts


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fields", "n_shuffles"),
    # 4 days are so few parts that they do not wait for Ray Data
    [({}, 0), ({"by": ["location", "day"]}, 1), ({"by": ["day"]}, 0)],
)
def test_a_cluster_writes_the_bytes_that_this_process_writes(
    local_ray: None,
    predictions: Path,
    tmp_path: Path,
    fields: dict[str, Any],
    n_shuffles: int,
    shuffled_parts: list[int],
) -> None:
    """Where events have images in several files, that is Ray Data's shuffle."""
    run(predictions, tmp_path / "here", executor=InThreads(), **fields)
    run(predictions, tmp_path / "there", **fields)
    assert bytes_below(tmp_path / "there") == bytes_below(tmp_path / "here")
    assert len(shuffled_parts) == n_shuffles


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_shuffle_of_ray_that_was_stopped_does_the_other_parts(
    local_ray: None, predictions: Path, tmp_path: Path, shuffled_parts: list[int]
) -> None:
    whole, out = tmp_path / "here", tmp_path / "out"
    run(predictions, whole, executor=InThreads(), by=["location", "day"])
    run(predictions, out, by=["location", "day"])
    (out / "_manifest.json").unlink()
    for path in sorted((out / "events").iterdir())[-7:]:
        path.unlink()
    run(predictions, out, by=["location", "day"])
    assert bytes_below(out) == bytes_below(whole)
    assert shuffled_parts[0] > shuffled_parts[1] == 7
