"""Camtrap DP: every medium is a row or a finding, times are compared in UTC."""

import csv
import json
from datetime import datetime

import pytest

from ctc_ray.inventory.clock_corrections import read_clock_corrections
from ctc_ray.inventory.sources.camtrap_dp import read_camtrap_dp


@pytest.fixture
def package(tmp_path):
    """A function that writes a package and returns its folder."""

    def written(media, observations, location=None):
        location = location or {"locationID": "", "locationName": "Pond"}
        tables = {
            "deployments": [{"deploymentID": "d", **location}],
            "media": [{"deploymentID": "d", "fileMediatype": "image/jpeg", **m} for m in media],
            "observations": [{"deploymentID": "d", **o} for o in observations],
        }
        for name, rows in tables.items():
            names = list(dict.fromkeys(key for row in rows for key in row))
            with open(tmp_path / f"{name}.csv", "w") as file:
                writer = csv.DictWriter(file, names, restval="NA")
                writer.writeheader()
                writer.writerows(rows)
        resources = [{"name": name, "path": f"{name}.csv"} for name in tables]
        (tmp_path / "datapackage.json").write_text(json.dumps({"resources": resources}))
        return str(tmp_path)

    return written


def test_event_contains_the_media_of_its_interval_for_any_utc_offsets(package):
    media = [
        {"mediaID": "a", "timestamp": "2020-05-30T04:00:00+02:00", "filePath": "m/a.jpg"},
        {"mediaID": "b", "timestamp": "2020-05-30T04:00:10+02:00", "filePath": "http://x/b.jpg"},
        {"mediaID": "c", "timestamp": "2020-05-30T04:09:00+02:00", "filePath": "m/c.jpg"},
        {"mediaID": "v", "timestamp": "2020-05-30T04:09:00+02:00", "filePath": "m/v.mp4",
         "fileMediatype": "video/mp4"},
    ]  # fmt: skip
    fox = {
        "observationID": "1", "eventID": "e", "eventStart": "2020-05-30T02:00:00Z",
        "eventEnd": "2020-05-30T02:00:10Z", "observationType": "animal",
        "scientificName": "Vulpes vulpes",
    }  # fmt: skip
    uri = package(media, [fox])

    inventory = read_camtrap_dp(uri, gap_s=60)

    rows = {row["image_uri"]: row for row in inventory.table.to_pylist()}
    assert set(rows) == {f"{uri}/m/a.jpg", "http://x/b.jpg", f"{uri}/m/c.jpg"}
    first, second, third = (rows[u] for u in (f"{uri}/m/a.jpg", "http://x/b.jpg", f"{uri}/m/c.jpg"))
    assert first["capture_event_id"] == second["capture_event_id"] == "e"
    assert first["observations"] == [{"species": "Vulpes vulpes"}]
    assert first["captured_at"] == datetime(2020, 5, 30, 4)
    assert third["observations"] == []
    assert {row["location_id"] for row in rows.values()} == {"Pond"}
    assert inventory.findings.counts["media_not_images"] == 1


def test_observations_of_an_event_replace_the_observations_of_its_media(package):
    media = [
        {"mediaID": n, "timestamp": f"2020-05-30T02:00:0{n}Z", "filePath": f"{n}.jpg"}
        for n in (1, 2, 3)
    ]
    times = {"eventStart": "2020-05-30T02:00:01Z", "eventEnd": "2020-05-30T02:00:02Z"}
    fox = {"eventID": "e", "observationType": "animal", "scientificName": "Vulpes vulpes", **times}
    blank = {"eventID": "e", "observationType": "blank", **times}
    observations = [
        {**fox, "observationID": "1", "mediaID": 1, "count": 1},
        {**blank, "observationID": "2", "mediaID": 2},
        {**blank, "observationID": "3", "mediaID": 3, "eventID": "f"},
    ]
    alone = read_camtrap_dp(package(media, observations), gap_s=60)
    whole = {**fox, "observationID": "4", "count": 2}
    both = read_camtrap_dp(package(media, [*observations, whole]), gap_s=60)

    for inventory, count in ((alone, "1"), (both, "2")):
        fox_label = {"species": "Vulpes vulpes", "count": count}
        assert inventory.table["observations"].to_pylist() == [
            [fox_label], [fox_label], [{"species": "blank", "count": None}]
        ]  # fmt: skip
    assert alone.findings.counts["blank_beside_labelled"] == 1
    assert both.findings.counts["media_observations_of_described_events"] == 2


def test_frame_without_observation_is_in_the_event_whose_interval_contains_its_time(package):
    media = [
        {"mediaID": n, "timestamp": f"2020-05-30T02:00:{n}Z", "filePath": f"{n}.jpg"}
        for n in (10, 20, 30)
    ]
    fox = {
        "observationID": "1", "mediaID": 10, "eventID": "e", "eventStart": "2020-05-30T02:00:10Z",
        "eventEnd": "2020-05-30T02:00:20Z", "observationType": "animal",
        "scientificName": "Vulpes vulpes",
    }  # fmt: skip

    table = read_camtrap_dp(package(media, [fox]), gap_s=60).table

    events = {row["image_uri"][-6:]: row["capture_event_id"] for row in table.to_pylist()}
    assert events["10.jpg"] == events["20.jpg"] == "e"
    assert events["30.jpg"] != "e"


def test_event_without_an_end_ends_at_its_start(package):
    media = [{"mediaID": "a", "timestamp": "2020-05-30T02:00:00Z", "filePath": "a.jpg"}]
    fox = {
        "observationID": "1", "eventID": "e", "eventStart": "2020-05-30T02:00:00Z",
        "eventEnd": "NA", "observationType": "animal", "scientificName": "Vulpes vulpes",
    }  # fmt: skip

    inventory = read_camtrap_dp(package(media, [fox]), gap_s=60)

    assert inventory.table["observations"].to_pylist() == [[{"species": "Vulpes vulpes"}]]
    assert "event_observations_without_media" not in inventory.findings.counts


def test_deployment_without_a_location_name_is_at_its_coordinates(package):
    media = [{"mediaID": "a", "timestamp": "2020-05-30T02:00:00Z", "filePath": "a.jpg"}]
    blank = {"observationID": "1", "mediaID": "a", "observationType": "blank"}
    for coordinates, location in (
        ({"latitude": "51.5", "longitude": "-0.1"}, "51.5 -0.1"),
        ({"latitude": "51.5", "longitude": "NA"}, None),
    ):
        table = read_camtrap_dp(package(media, [blank], coordinates), gap_s=60).table
        assert table["location_id"].to_pylist() == [location]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("path", "n_media", "n_images"),
    [
        ("annotations/camtrapdp_0.1/camtrapdp_0.1/mica", 283, 283),
        ("annotations/camtrapdp_1.0_spec_and_example/example", 423, 423),
        ("photos/camtrapdp_example", 423, 423),
        ("photos/ena24_small/images/camtrap_dp_small", 5, 4),
    ],
)
def test_every_medium_of_a_real_package_is_a_row_or_a_finding(shared_data, path, n_media, n_images):
    inventory = read_camtrap_dp(str(shared_data / path), gap_s=60)

    set_aside = inventory.findings.counts.get("media_not_images", 0)
    assert inventory.table.num_rows == n_images
    assert n_images + set_aside == n_media


def test_equal_event_ids_of_two_deployments_are_two_events(package):
    media = [
        {"mediaID": name, "deploymentID": name, "timestamp": f"2020-05-30T0{hour}:00:00Z",
         "filePath": f"m/{name}.jpg"}
        for hour, name in enumerate("de")
    ]  # fmt: skip
    seen = [
        {"observationID": name, "deploymentID": name, "eventID": "1", "scientificName": species,
         "observationType": "animal",
         "eventStart": f"2020-05-30T0{hour}:00:00Z", "eventEnd": f"2020-05-30T0{hour}:00:00Z"}
        for hour, (name, species) in enumerate([("d", "Vulpes vulpes"), ("e", "Meles meles")])
    ]  # fmt: skip

    inventory = read_camtrap_dp(package(media, seen), gap_s=60)

    found = {row["capture_event_id"]: row["observations"] for row in inventory.table.to_pylist()}
    assert found == {"d 1": [{"species": "Vulpes vulpes"}], "e 1": [{"species": "Meles meles"}]}
    assert inventory.findings.counts["event_ids_of_several_deployments"] == 1


def media(*names):
    return [
        {"mediaID": name, "timestamp": f"2020-05-0{n + 1}T10:00:00Z", "filePath": f"{name}.jpg"}
        for n, name in enumerate(names)
    ]


def seen(medium, species, count="1", **fields):
    return {
        "observationID": f"{medium}{species}{count}{len(fields)}", "mediaID": medium,
        "observationType": "animal", "scientificName": species, "count": count, **fields,
    }  # fmt: skip


def labels_by_image(inventory):
    return {
        row["image_uri"].rpartition("/")[2][0]: [
            {k: v for k, v in one.items() if v is not None} for one in row["observations"]
        ]
        for row in inventory.table.to_pylist()
    }


MACHINE, PERSON = {"classificationMethod": "machine"}, {"classificationMethod": "human"}


@pytest.mark.parametrize(
    ("rule", "expected", "counts"),
    [
        ("where-unlabelled", {"a": ["fox"], "b": ["badger"], "c": ["fox"]}, (2, 1, 0)),
        ("keep", {"a": ["fox"], "b": ["badger", "fox"], "c": ["fox"]}, (3, 0, 0)),
        ("only", {"a": ["fox"], "b": ["fox"], "c": ["fox"]}, (3, 0, 1)),
    ],
)
def test_a_persons_label_goes_before_a_models_and_models_are_told(package, rule, expected, counts):
    observations = [
        seen("a", "fox", **MACHINE),
        seen("b", "badger", **PERSON),
        seen("b", "fox", **MACHINE),
        seen("c", "fox", **MACHINE),
        {"observationID": "u", "mediaID": "c", "observationType": "unclassified", **PERSON},
    ]
    found = read_camtrap_dp(package(media(*"abc"), observations), gap_s=60, machine_labels=rule)
    species = {
        name: sorted(one["species"] for one in of if one["species"] != "unclassified")
        for name, of in labels_by_image(found).items()
    }
    assert species == expected
    kinds = ("machine_labels", "machine_labels_left_out", "labels_of_people_left_out")
    assert tuple(found.findings.counts.get(kind, 0) for kind in kinds) == counts


def test_a_persons_label_of_the_whole_event_goes_before_a_models_of_its_images(package):
    event = {
        "observationID": "e", "eventID": "e", "eventStart": "2020-05-01T09:00:00Z",
        "eventEnd": "2020-05-01T11:00:00Z", "observationType": "animal",
        "scientificName": "badger", **PERSON,
    }  # fmt: skip
    uri = package(media("a"), [event, {**seen("a", "fox", **MACHINE), "eventID": "e"}])
    assert labels_by_image(read_camtrap_dp(uri, gap_s=60))["a"] == [{"species": "badger"}]


def test_animals_of_one_species_add_up_over_life_stages(package):
    observations = [
        seen("a", "fox", "1", lifeStage="adult", sex="male"),
        seen("a", "fox", "2.0", lifeStage="juvenile", sex="male"),
        seen("b", "fox", "1"),
        seen("b", "hare", "2"),
        seen("c", "fox", "1", lifeStage="adult"),
        seen("c", "fox", "", lifeStage="juvenile"),
        seen("d", "fox", "1.0"),
    ]
    found = read_camtrap_dp(package(media(*"abcd"), observations), gap_s=60)
    labels = labels_by_image(found)
    assert labels["a"] == [{"species": "fox", "count": "3", "sex": "male"}]
    assert sorted(one["count"] for one in labels["b"]) == ["1", "2"]
    assert len(labels["c"]) == 2  # no number can be told: several observations, a finding
    assert labels["d"] == [{"species": "fox", "count": "1"}]
    assert found.findings.counts["observations_added_up"] == 1
    assert found.findings.counts["events_with_several_observations"] == 2


def test_images_of_a_burst_are_not_added_up(package):
    frames = [{**m, "timestamp": f"2020-05-01T10:00:0{n}Z"} for n, m in enumerate(media(*"abc"))]
    observations = [seen(name, "fox", "1") for name in "abc"]
    found = read_camtrap_dp(package(frames, observations), gap_s=60)
    assert found.images.n_events == 1
    assert labels_by_image(found)["a"] == [{"species": "fox", "count": "1"}]


def test_the_case_of_the_field_is_read(shared_data):
    case = shared_data.parent / "cases" / "17-machine-labels-in-camtrap-dp" / "pkg"
    found = read_camtrap_dp(str(case), gap_s=60)
    labels = [row["observations"] for row in found.table.to_pylist()]
    species = sorted((one["species"], one["count"]) for of in labels for one in of)
    assert species == [("Meles meles", "1"), ("Vulpes vulpes", "1"), ("Vulpes vulpes", "3")]
    assert found.findings.counts["machine_labels"] == 1


def test_times_of_every_table_that_cannot_be_read_are_listed(package):
    media = [
        {"mediaID": 1, "timestamp": "yesterday", "filePath": "1.jpg"},
        {"mediaID": 2, "timestamp": "2020-05-30T02:00:00Z", "filePath": "2.jpg"},
    ]
    observations = [
        {"observationID": "o", "mediaID": 1, "observationType": "blank", "eventStart": "30/5/2020",
         "eventEnd": "2020-05-30T02:00:00Z"},
    ]  # fmt: skip
    place = {"locationName": "Pond", "deploymentStart": "2020-05-30", "deploymentEnd": ""}
    uri = package(media, observations, place)

    findings = read_camtrap_dp(uri, gap_s=60).findings

    listed = [(row["row"], row["detail"]) for row in findings.cases("unreadable_times")]
    assert listed == [(f"{uri}/1.jpg", "yesterday"), ("d", "2020-05-30"), ("o", "30/5/2020")]
    assert findings.counts["unreadable_times"] == 3


def test_a_corrected_clock_moves_images_and_their_gaps_but_no_named_event(package, tmp_path):
    media = [
        {"mediaID": n, "timestamp": f"2020-05-30T{at}Z", "filePath": f"{n}.jpg"}
        for n, at in ((1, "02:00:00"), (2, "08:00:00"), (3, "09:00:30"))
    ]
    whole = {"observationID": "o", "eventID": "e", "observationType": "blank",
             "eventStart": "2020-05-30T02:00:00Z", "eventEnd": "2020-05-30T02:00:10Z"}  # fmt: skip
    uri = package(media, [whole])
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("deployment,to,shift\nd,2020-05-30 08:30:00,1:00\n")

    inventory = read_camtrap_dp(uri, gap_s=60, corrections=read_clock_corrections(str(fixes)))

    rows = {row["image_uri"][-5]: row for row in inventory.table.to_pylist()}
    assert [rows[n]["captured_at"].hour for n in "123"] == [3, 9, 9]
    assert [rows[n]["n_images"] for n in "123"] == [1, 2, 2]
    assert rows["1"]["capture_event_id"] == "e"


@pytest.mark.parametrize(
    "second",
    [{**MACHINE, "classifiedBy": "model"}, {**PERSON, "classifiedBy": "B"}, {}],
    ids=["a model", "another person", "the same person again"],
)
def test_one_animal_that_is_labelled_twice_is_one(package, second):
    first = seen("a", "fox", "1", lifeStage="adult", **{**PERSON, "classifiedBy": "A"})
    again = {**first, **second, "observationID": "again"}
    found = read_camtrap_dp(package(media("a"), [first, again]), gap_s=60, machine_labels="keep")
    assert labels_by_image(found)["a"] == [{"species": "fox", "count": "1", "lifeStage": "adult"}]
    assert "observations_added_up" not in found.findings.counts


def frames_of_one_event(names, labels, whole):
    """Frames that a person has labelled, and what a model says of their event."""
    frames = [{**m, "timestamp": f"2020-05-01T10:00:0{n}Z"} for n, m in enumerate(media(*names))]
    event = {
        "observationID": "e", "eventID": "e", "eventStart": "2020-05-01T10:00:00Z",
        "eventEnd": "2020-05-01T10:00:09Z", "observationType": "animal", "scientificName": whole,
        **MACHINE,
    }  # fmt: skip
    of_frames = [
        {"observationID": f"o{n}", "mediaID": name, "eventID": "e", **PERSON,
         **({"observationType": "blank"} if label == "blank" else
            {"observationType": "animal", "scientificName": label})}
        for n, (name, label) in enumerate(zip(names, labels, strict=False))
    ]  # fmt: skip
    return frames, [event, *of_frames]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["blank"], "fox"), (["blank"] * 3, "blank"), (["badger"], "badger"), ([], "fox")],
    ids=["one frame blank", "all frames blank", "an animal in one frame", "nothing"],
)
def test_a_blank_frame_says_nothing_about_the_others_of_its_event(package, labels, expected):
    frames, observations = frames_of_one_event("abc", labels, "fox")
    found = read_camtrap_dp(package(frames, observations), gap_s=60)
    assert found.images.n_events == 1
    assert labels_by_image(found)["a"] == [{"species": expected}]


def test_images_of_one_second_of_a_given_event_follow_the_counter_of_the_camera(package):
    second = "2020-05-30T04:00:00Z"
    names = ["IMG_8", "IMG_9", "IMG_10", "IMG_11"]
    media = [{"mediaID": n, "timestamp": second, "filePath": f"m/{n}.JPG"} for n in sorted(names)]
    seen = [
        {"observationID": n, "mediaID": n, "eventID": "e", "observationType": "animal"}
        for n in names
    ]

    inventory = read_camtrap_dp(package(media, seen), gap_s=60)

    rows = inventory.table.to_pylist()
    assert [row["image_uri"].rpartition("/")[2] for row in rows] == [f"{n}.JPG" for n in names]
    assert [row["image_index"] for row in rows] == [0, 1, 2, 3]
