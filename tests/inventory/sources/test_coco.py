"""COCO: no image is lost, events are sequences, and mismatches are findings."""

import json

import pytest

from ctc_ray.errors import SchemaError
from ctc_ray.inventory.clock_corrections import read_clock_corrections
from ctc_ray.inventory.sources.coco import read_coco
from ctc_ray.schemas import inventory_schema

CATEGORIES = [{"id": 0, "name": "empty"}, {"id": 1, "name": "Red Fox"}]


def coco(images, annotations=(), categories=CATEGORIES):
    return json.dumps(
        {"images": images, "annotations": list(annotations), "categories": categories}
    )


def image(number, **fields):
    return {"id": number, "file_name": f"{number}.jpg", **fields}


def test_sequence_is_one_event_in_the_order_of_its_frames(write):
    images = [image("a", seq_id=7, frame_num=1), image("b"), image("c", seq_id=7, frame_num=0)]
    notes = [{"image_id": "a", "category_id": 1, "count": 2}, {"image_id": "c", "category_id": 0}]

    inventory = read_coco(write(coco(images, notes)), gap_s=60)

    rows = {row["image_uri"]: row for row in inventory.table.to_pylist()}
    assert inventory.table.schema.equals(inventory_schema(("species", "count")))
    assert [rows[f"{n}.jpg"]["image_index"] for n in "ca"] == [0, 1]
    assert rows["a.jpg"]["capture_event_id"] == rows["c.jpg"]["capture_event_id"] == "7"
    assert rows["a.jpg"]["observations"] == [{"species": "Red Fox", "count": "2"}]
    assert rows["b.jpg"]["observations"] == []
    assert inventory.findings.counts["blank_beside_labelled"] == 1


@pytest.mark.parametrize("reverse", [False, True])
def test_sequence_without_frame_numbers_is_ordered_by_time_then_by_file_name(write, reverse):
    images = [
        image("c", seq_id=1, datetime="2020-01-01 00:00:00"),
        image("a", seq_id=1, datetime="2020-01-01 00:00:01"),
        image("b", seq_id=1, datetime="2020-01-01 00:00:01"),
        image("z", seq_id=2, frame_num="1"),
        image("y", seq_id=2, frame_num="2"),
    ]

    table = read_coco(write(coco(images[::-1] if reverse else images)), gap_s=60).table

    assert table["image_uri"].to_pylist() == ["c.jpg", "a.jpg", "b.jpg", "z.jpg", "y.jpg"]


def test_sequence_that_lacks_an_image_is_a_finding(write):
    images = [image(n, seq_id=seq, seq_num_frames=2) for n, seq in ((1, "p"), (2, "q"), (3, "q"))]

    findings = read_coco(write(coco([*images, image(4)])), gap_s=60).findings

    assert findings.counts["sequences_of_other_length"] == 1
    assert findings.examples("sequences_of_other_length") == ["p (1 images of 2)"]


def test_integers_written_as_floats_are_read_as_integers(write):
    nothing = float("nan")
    images = [
        image(1, seq_id=nothing, location=nothing),
        image(2, seq_id=nothing, location=3.0),
        image(3, seq_id=5.0),
    ]
    notes = [
        {"image_id": 1.0, "category_id": 1.0, "count": 2.0},
        {"image_id": 3, "category_id": 1, "count": nothing},
    ]

    inventory = read_coco(write(coco(images, notes)), gap_s=60)

    rows = {row["image_uri"]: row for row in inventory.table.to_pylist()}
    assert len({row["capture_event_id"] for row in rows.values()}) == 3
    assert rows["3.jpg"]["capture_event_id"] == "5"
    assert [rows[f"{n}.jpg"]["location_id"] for n in (1, 2)] == [None, "3"]
    assert rows["1.jpg"]["observations"] == [{"species": "Red Fox", "count": "2"}]
    assert rows["3.jpg"]["observations"] == [{"species": "Red Fox", "count": None}]


def test_images_without_sequence_are_events_by_gap_at_their_location(write):
    times = {"a": "2020-01-01 00:00:00", "b": "2020-01-01 00:01:00", "c": "2020-01-01 00:02:01"}
    images = [image(n, datetime=time, location=3) for n, time in times.items()]
    images.append(image("d", datetime=times["a"], location=4))

    table = read_coco(write(coco(images)), gap_s=60).table

    events = dict(
        zip(table["image_uri"].to_pylist(), table["capture_event_id"].to_pylist(), strict=True)
    )
    assert events["a.jpg"] == events["b.jpg"]
    assert len(set(events.values())) == 3
    assert sorted(set(table["location_id"].to_pylist())) == ["3", "4"]


def test_boxes_in_pixels_and_relative_boxes_give_equal_lists(write):
    images = [image(1, width=200, height=100), image(2), image(3)]
    notes = [
        {"image_id": 1, "category_id": 1, "bbox": [50, 50, 100, 25]},
        {"image_id": 2, "category_id": 1, "bbox_relative": [0.25, 0.5, 0.5, 0.25]},
        {"image_id": 3, "category_id": 1, "bbox": [50, 50, 100, 25]},
    ]

    inventory = read_coco(write(coco(images, notes)), gap_s=60)

    rows = {row["image_uri"]: row["boxes"] for row in inventory.table.to_pylist()}
    box = {"category": "Red Fox", "confidence": None, "x": 0.25, "y": 0.5, "w": 0.5, "h": 0.25}
    assert rows == {"1.jpg": [box], "2.jpg": [box], "3.jpg": None}
    assert inventory.findings.counts["boxes_without_image_size"] == 1


def test_annotations_and_images_that_do_not_fit_are_findings(write):
    images = [image(1, corrupt=True, datetime="noon"), image(1), {"id": 2}]
    notes = [{"image_id": 9, "category_id": 1}, {"image_id": 1, "category_id": 5}]

    inventory = read_coco(write(coco(images, notes)), gap_s=60)

    assert inventory.table["image_uri"].to_pylist() == ["1.jpg"]
    assert inventory.findings.counts == {
        "images_without_id_or_name": 1,
        "duplicate_image_ids": 1,
        "annotations_of_unknown_images": 1,
        "annotations_of_unknown_categories": 1,
        "corrupt_images": 1,
        "unreadable_times": 1,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"info": {}}', "key 'images' not found; keys are info"),
        (coco([]), "none of 0 images has both id and file_name"),
        (coco([image(1)], [], [{"id": 1}]), r"categories\[0\] must have an id and a name"),
        (coco([image(1)], [], [CATEGORIES[0]] * 2), "two categories have the id 0"),
    ],
)
def test_file_that_is_not_coco_is_an_error(write, content, message):
    with pytest.raises(SchemaError, match=message):
        read_coco(write(content), gap_s=60)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("path", "n_images", "n_events", "n_boxes"),
    [
        ("annotations/lindenthal_coco_cct/annotations_lindenthal.json", 1245, 60, 4872),
        ("photos/ena24_small/images/ena24_small/coco_annotations.json", 21, 21, 21),
        ("photos/ena24_small/labels.json", 4, 4, 4),
    ],
)
def test_no_image_and_no_box_of_a_real_file_is_lost(shared_data, path, n_images, n_events, n_boxes):
    inventory = read_coco(str(shared_data / path), gap_s=60)

    boxes = inventory.table["boxes"].to_pylist()
    assert inventory.table.num_rows == n_images
    assert len(set(inventory.table["capture_event_id"].to_pylist())) == n_events
    assert sum(len(one or []) for one in boxes) == n_boxes


def events_of(inventory) -> dict[str, list[str]]:
    events: dict[str, list[str]] = {}
    for row in inventory.table.to_pylist():
        events.setdefault(row["capture_event_id"], []).append(row["image_uri"])
    return events


def test_one_sequence_id_at_two_locations_is_two_events(write):
    images = [
        image(f"{place}/{n}", seq_id="1", frame_num=n, location=place)
        for place in "AB"
        for n in range(3)
    ]
    notes = [{"image_id": f"A/{n}", "category_id": 1} for n in range(3)]
    notes += [{"image_id": f"B/{n}", "category_id": 0} for n in range(3)]
    found = read_coco(write(coco(images, notes)), gap_s=60)
    assert events_of(found) == {f"{p} 1": [f"{p}/{n}.jpg" for n in range(3)] for p in "AB"}
    labels = {row["capture_event_id"]: row["observations"] for row in found.table.to_pylist()}
    assert labels == {"A 1": [{"species": "Red Fox"}], "B 1": [{"species": "empty"}]}
    assert found.findings.counts["sequences_of_several_locations"] == 1


def test_a_sequence_id_that_comes_again_much_later_is_another_event(write):
    times = ["10:00:00", "10:00:02", "10:59:00", "12:00:00", "12:00:01", "23:00:00"]
    images = [image(n, seq_id=7, datetime=f"2020-05-01 {t}") for n, t in enumerate(times)]
    images += [image(9, seq_id=7)]  # without a time: in the first part
    found = read_coco(write(coco(images)), gap_s=60)
    assert events_of(found) == {
        "7": ["0.jpg", "1.jpg", "2.jpg", "9.jpg"],
        "7 part 2": ["3.jpg", "4.jpg"],
        "7 part 3": ["5.jpg"],
    }
    assert found.findings.counts["sequences_far_apart"] == 1


def test_a_set_without_annotations_has_no_labels(write):
    content = json.dumps({"images": [image(1), image(2)], "categories": CATEGORIES})
    null = {"images": [image(1), image(2)], "annotations": None, "categories": None}
    for source in (content, json.dumps({"images": [image(1), image(2)]}), json.dumps(null)):
        found = read_coco(write(source), gap_s=60)
        assert found.heads == ()
        assert len(found.table) == 2


def test_counts_written_in_several_ways_are_one_class(write):
    values = [1, 1.0, "1", "1.0", "1.", "01", " 1 ", "1.5", "10", "0"]
    images = [image(n) for n in range(len(values))]
    notes = [{"image_id": n, "category_id": 1, "count": v} for n, v in enumerate(values)]
    found = read_coco(write(coco(images, notes)), gap_s=60)
    rows = {row["image_uri"]: row["observations"][0]["count"] for row in found.table.to_pylist()}
    assert [rows[f"{n}.jpg"] for n in range(10)] == [*["1"] * 7, "1.5", "10", "0"]


def test_the_cases_of_the_field_are_read(shared_data):
    cases = shared_data.parent / "cases"
    apart = read_coco(str(cases / "18-coco-seq-id-per-camera" / "coco.json"), gap_s=60)
    assert [len(uris) for uris in events_of(apart).values()] == [3, 3]
    odd = cases / "08-coco-oddities"
    assert read_coco(str(odd / "test_no_annotations.json"), gap_s=60).heads == ()
    mixed = read_coco(str(odd / "mixed.json"), gap_s=60)
    assert len({e.partition(" ")[0] for e in events_of(mixed)}) == 2
    assert mixed.findings.counts["unreadable_times"] >= 2


def test_times_that_cannot_be_read_are_listed_with_their_image(write):
    images = [
        image(1, datetime="2020-01-01 00:00:00"),
        image(2, datetime="noon"),
        image(3, date_captured="31.12.2020"),
        image(4),
    ]
    findings = read_coco(write(coco(images)), gap_s=60).findings
    assert findings.examples("unreadable_times") == ["2.jpg (noon)", "3.jpg (31.12.2020)"]
    assert findings.counts["unreadable_times"] == 2


def test_a_corrected_clock_makes_the_events(write, tmp_path):
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("deployment,to,shift\nS,2020-01-01 09:30:00,1:00\n")
    images = [
        image(1, location="S", datetime="2020-01-01 09:00:00"),
        image(2, location="S", datetime="2020-01-01 10:00:30"),
    ]
    corrections = read_clock_corrections(str(fixes))
    table = read_coco(write(coco(images)), gap_s=60, corrections=corrections).table
    assert table["n_images"].to_pylist() == [2, 2]
    assert [time.hour for time in table["captured_at"].to_pylist()] == [10, 10]


@pytest.mark.parametrize("time", [{}, {"datetime": "2020-01-01 00:00:00"}])
def test_images_of_one_moment_of_a_sequence_follow_the_counter_of_the_camera(write, time):
    names = ["IMG_9998", "IMG_9999", "IMG_0001"]
    short = ["IMG_8", "IMG_9", "IMG_10", "IMG_11"]
    images = [image(n, seq_id=1, **time) for n in sorted(names)]
    images += [image(n, seq_id=2, **time) for n in sorted(short)]

    table = read_coco(write(coco(images)), gap_s=60).table

    assert table["image_uri"].to_pylist() == [f"{n}.jpg" for n in [*names, *short]]
