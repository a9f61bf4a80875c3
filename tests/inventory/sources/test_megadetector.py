"""MegaDetector: boxes are added to the right image or are findings; no row is lost or moved."""

import json

import pyarrow as pa
import pytest

from ctc_ray.errors import SchemaError
from ctc_ray.inventory.events.assemble import TEXT
from ctc_ray.inventory.sources.coco import read_coco
from ctc_ray.inventory.sources.megadetector import add_boxes, match_files


def inventory(write, *names):
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    return read_coco(
        write(json.dumps({"images": images, "annotations": [], "categories": []})), gap_s=0
    ).table


def result(*entries):
    return json.dumps({"detection_categories": {"1": "animal"}, "images": list(entries)})


def matched(files, uris):
    found = match_files(pa.array(files, TEXT), pa.array(uris, TEXT))
    pairs = {f: None if n < 0 else uris[n] for f, n in zip(files, found.uris, strict=True)}
    return pairs, [f for f, one in zip(files, found.is_ambiguous, strict=True) if one]


def test_exact_path_wins_over_the_end_of_another():
    assert matched(["a.jpg"], ["x/a.jpg", "a.jpg"]) == ({"a.jpg": "a.jpg"}, [])


def test_end_of_a_path_matches_by_whole_folders_in_both_directions():
    uris = ["/data/x/a.jpg", "/data/y/a.jpg", "s3://b/xb.jpg", "c.jpg"]
    pairs, ambiguous = matched(["x\\a.jpg", "b.jpg", "/home/me/c.jpg"], uris)
    assert pairs == {"x\\a.jpg": uris[0], "b.jpg": None, "/home/me/c.jpg": "c.jpg"}
    assert ambiguous == []


def test_file_that_matches_two_images_is_ambiguous_and_so_are_two_files_of_one_image():
    assert matched(["a.jpg"], ["x/a.jpg", "y/a.jpg"]) == ({"a.jpg": None}, ["a.jpg"])
    pairs, ambiguous = matched(["a.jpg", "x/a.jpg"], ["/z/x/a.jpg"])
    assert set(pairs.values()) == {None}
    assert ambiguous == ["a.jpg", "x/a.jpg"]


def test_empty_list_stays_empty_and_failures_and_unmatched_files_are_findings(write):
    rows = inventory(write, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    box = {"category": "1", "conf": 0.5, "bbox": [0.25, 0.5, 0.5, 0.25]}
    source = result(
        {"file": "a.jpg", "detections": [box, {**box, "category": "9"}]},
        {"file": "b.jpg", "detections": []},
        {"file": "c.jpg", "failure": "Failure image access", "detections": None},
        {"file": "z.jpg", "detections": [box]},
        {"file": "a.jpg", "detections": []},
    )

    found = add_boxes(write(source), rows, heads=("species",))

    boxes = dict(zip(rows["image_uri"].to_pylist(), found.table["boxes"].to_pylist(), strict=True))
    one = {"category": "animal", "confidence": 0.5, "x": 0.25, "y": 0.5, "w": 0.5, "h": 0.25}
    assert boxes == {"a.jpg": [one], "b.jpg": [], "c.jpg": None, "d.jpg": None}
    assert found.table.schema.equals(rows.schema)
    assert found.findings.counts == {
        "detector_failures": 1,
        "duplicate_files": 1,
        "unreadable_detections": 1,
        "unmatched_files": 1,
        "images_without_result": 2,
    }


def test_box_that_reaches_beyond_the_image_is_kept_and_counted(write):
    far = {"category": "1", "conf": 0.5, "bbox": [0.5, 0.5, 0.75, 0.25]}
    rows = inventory(write, "a.jpg")

    found = add_boxes(write(result({"file": "a.jpg", "detections": [far]})), rows, heads=())

    assert len(found.table["boxes"][0]) == 1
    assert found.findings.counts == {"boxes_beyond_the_image": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ('{"images": []}', "detection_categories must be an object"),
        (result({"detections": []}), r"images\[0\] has no file"),
        (result({"file": "a", "detections": [3]}), "a detection of a is not an object"),
    ],
)
def test_file_that_is_not_a_result_is_an_error(write, content, message):
    rows = inventory(write, "a.jpg")
    with pytest.raises(SchemaError, match=message):
        add_boxes(write(content), rows, heads=("species",))


@pytest.mark.real_data
@pytest.mark.parametrize(
    "path",
    [
        "annotations/megadetector_results_ena24/ena.md.4.1.0.json",
        "annotations/megadetector_results_lila_samples/expected_output_DRAFT.json",
        "photos/ena24_small/images/megadetector_output.json",
    ],
)
def test_every_box_of_a_real_file_is_added_to_its_image(write, shared_data, path):
    entries = json.loads((shared_data / path).read_text())["images"]
    names = [entry["file"] for entry in entries]
    expected = {e["file"]: len(e["detections"]) for e in entries if e.get("detections") is not None}
    rows = inventory(write, *(f"/photos/{name}" for name in dict.fromkeys(names)))

    found = add_boxes(str(shared_data / path), rows, heads=("species",)).table

    got = zip(found["image_uri"].to_pylist(), found["boxes"].to_pylist(), strict=True)
    assert {uri[8:]: len(boxes) for uri, boxes in got if boxes is not None} == expected


BOX = {"category": "1", "conf": 0.5, "bbox": [0.25, 0.5, 0.5, 0.25]}


@pytest.mark.parametrize(
    "unreadable", [{**BOX, "category": "9"}, {**BOX, "conf": "high"}, {**BOX, "bbox": [1, 2]}]
)
def test_an_image_whose_detections_cannot_be_read_is_not_an_empty_one(write, unreadable):
    rows = inventory(write, "a.jpg", "b.jpg", "c.jpg")
    source = result(
        {"file": "a.jpg", "detections": [unreadable]},
        {"file": "b.jpg", "detections": [unreadable, BOX]},
        {"file": "c.jpg", "detections": []},
    )
    found = add_boxes(write(source), rows, heads=())
    boxes = dict(zip(found.table["image_uri"].to_pylist(), found.table["boxes"].to_pylist(),
                     strict=True))  # fmt: skip
    assert boxes["a.jpg"] is None
    assert len(boxes["b.jpg"]) == 1
    assert boxes["c.jpg"] == []
    assert found.findings.counts["unreadable_detections"] == 2


def test_numbers_as_text_are_numbers(write):
    rows = inventory(write, "a.jpg", "b.jpg")
    as_text = {"category": 1, "conf": "0.5", "bbox": ["0.25", "0.5", "0.5", 0.25]}
    source = result(
        {"file": "a.jpg", "detections": [BOX]}, {"file": "b.jpg", "detections": [as_text]}
    )
    first, second = add_boxes(write(source), rows, heads=()).table["boxes"].to_pylist()
    assert first == second
    assert len(first) == 1


def test_names_match_over_unicode_forms_and_endings_where_that_is_unique():
    composed, decomposed = "caf\u00e9/IMG_1.JPG", "cafe\u0301/IMG_1.JPG"
    assert matched([decomposed], [composed, "x.jpg"]) == ({decomposed: composed}, [])
    assert matched(["b/IMG.JPG"], ["b/IMG.jpg"]) == ({"b/IMG.JPG": "b/IMG.jpg"}, [])
    twice = ["r/b/IMG.jpg", "r/b/IMG.Jpg"]
    assert matched(["b/IMG.JPG"], twice) == ({"b/IMG.JPG": None}, ["b/IMG.JPG"])
    # each spelling that is there has its own file, so nothing is guessed
    both = ["r/b/IMG.jpg", "r/b/IMG.JPG"]
    pairs = {"b/IMG.jpg": both[0], "b/IMG.JPG": both[1]}
    assert matched(list(pairs), both) == (pairs, [])
    assert matched(["b/IMG.JPG"], both) == ({"b/IMG.JPG": both[1]}, [])
    assert matched(["b/img.JPG"], ["b/IMG.jpg"]) == ({"b/img.JPG": None}, [])


def test_the_case_of_the_field_is_read(write, shared_data):
    case = shared_data.parent / "cases" / "07-megadetector-json"
    names = sorted(str(p.relative_to(case / "root")) for p in (case / "root").rglob("*.*"))
    found = add_boxes(str(case / "md.json"), inventory(write, *names), heads=())
    boxes = dict(zip(found.table["image_uri"].to_pylist(), found.table["boxes"].to_pylist(),
                     strict=True))  # fmt: skip
    n_boxes = {name[-9:-4]: None if b is None else len(b) for name, b in boxes.items()}
    assert n_boxes == {
        "IMG_1": 1, "IMG_2": 1, "IMG_3": 1, "IMG_4": 1, "IMG_5": 2, "IMG_6": 0, "IMG_7": None,
        "IMG_8": 1, "IMG_9": None,
    }  # fmt: skip


UNREADABLE = {**BOX, "category": "9"}


def test_a_readable_retry_counts_and_an_unreadable_result_erases_nothing(write):
    rows = inventory(write, "a.jpg", "b.jpg")
    first = result({"file": "b.jpg", "detections": [BOX]})
    rows = add_boxes(write(first), rows, heads=()).table
    source = result(
        {"file": "a.jpg", "detections": [UNREADABLE]},
        {"file": "a.jpg", "detections": [BOX, BOX]},
        {"file": "a.jpg", "detections": []},
        {"file": "b.jpg", "detections": [UNREADABLE]},
    )
    found = add_boxes(write(source), rows, heads=())
    boxes = dict(zip(found.table["image_uri"].to_pylist(), found.table["boxes"].to_pylist(),
                     strict=True))  # fmt: skip
    assert {name: len(of) for name, of in boxes.items()} == {"a.jpg": 2, "b.jpg": 1}
    assert found.findings.counts["unreadable_detections"] == 2
    assert found.findings.counts["duplicate_files"] == 1
