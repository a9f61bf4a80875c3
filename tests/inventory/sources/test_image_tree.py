"""A folder of images: events are made by gaps in time, folders may be places and labels."""

from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError
from ctc_ray.inventory.sources.files import FoundFile
from ctc_ray.inventory.sources.image_tree import (
    EventRules,
    TreeImages,
    layout_pattern,
    read_tree,
)

START = datetime(2021, 4, 11, 20, 43, 9)


def tree(
    files: dict[str, int | None],
    layout: str | None = None,
    max_images: int | None = None,
    **options: object,
):
    """The inventory of files: path -> seconds after the start; None: no time."""
    times = [None if s is None else START + timedelta(seconds=s) for s in files.values()]
    found = [FoundFile(f"root/{path}", path) for path in files]
    return read_tree(
        "root",
        TreeImages(found, pa.array(times, pa.timestamp("us"))),
        layout=layout,
        rules=EventRules(max_images=max_images),
        **options,
    )


def by_path(inventory, *names: str) -> dict[str, tuple]:
    columns = [inventory.table[name].to_pylist() for name in names]
    paths = [uri.removeprefix("root/") for uri in inventory.table["image_uri"].to_pylist()]
    return dict(zip(paths, zip(*columns, strict=True), strict=True))


def events(inventory) -> list[list[str]]:
    """The images of each event in their order, events by their first image."""
    found: dict[str, list[str]] = {}
    for path, (event,) in by_path(inventory, "capture_event_id").items():
        found.setdefault(event, []).append(path)
    return sorted(found.values())


def test_without_a_layout_the_folder_is_the_deployment():
    inventory = tree(
        {"S/b/1.jpg": 0, "S/a/2.jpg": 30, "S/a/1.jpg": 30, "S/a/3.jpg": 91, "x.jpg": 0}
    )

    assert events(inventory) == [
        ["S/a/1.jpg", "S/a/2.jpg"],
        ["S/a/3.jpg"],
        ["S/b/1.jpg"],
        ["x.jpg"],
    ]
    found = by_path(inventory, "location_id", "deployment_id")
    assert found["S/a/1.jpg"] == (None, "S/a")
    assert found["x.jpg"] == (None, None)
    assert inventory.findings.counts == {}


def test_event_ids_do_not_depend_on_the_location_of_the_tree():
    paths = ["S/a/1.jpg", "S/a/\udce9.jpg", "S/b/1.jpg"]

    def ids(root: str) -> list[str]:
        files = [FoundFile(f"{root}/{index}", path) for index, path in enumerate(paths)]
        times = pa.nulls(len(paths), pa.timestamp("us"))
        found = read_tree(root, TreeImages(files, times))
        return found.table["capture_event_id"].to_pylist()

    assert ids("/data/photos") == ids("s3://bucket")
    assert len(set(ids("/data/photos"))) == 3


def test_event_ids_stay_those_of_earlier_versions():
    """The hash of the first image: splits depend on it."""
    for layout, camera in (
        (None, "//S/a"),
        ("{location}", "S/a"),
        ("{location}/{deployment}", "S//a"),
    ):
        (found,) = by_path(tree({"S/a/1.jpg": 0}, layout), "capture_event_id")["S/a/1.jpg"]
        key = repr((camera, int(START.replace(tzinfo=UTC).timestamp()) * 1_000_000, "S/a/1.jpg"))
        assert found == blake2b(key.encode(), digest_size=12).hexdigest()


def test_layout_names_location_deployment_and_metadata():
    paths = [
        "north/x/L1/cam_A/100EK/1.jpg",
        "north/y/L1/cam_A/101EK/2.jpg",
        "north/x/L2/cam_A/3.jpg",
    ]
    inventory = tree(
        dict.fromkeys([*paths, "south/4.jpg"], 0), "{area}/*/{location}/cam_{deployment}"
    )

    names = ("location_id", "deployment_id", "meta_area")
    assert by_path(inventory, *names) == {
        paths[0]: ("L1", "A", "north"),
        paths[1]: ("L1", "A", "north"),
        paths[2]: ("L2", "A", "north"),
        "south/4.jpg": (None, None, None),
    }
    assert events(inventory) == [[paths[0], paths[1]], [paths[2]], ["south/4.jpg"]]
    assert inventory.findings.examples("files_outside_layout") == [
        "south/4.jpg (does not fit {area}/*/{location}/cam_{deployment})"
    ]


def test_layout_of_literal_parts_finds_files_that_do_not_fit():
    inventory = tree({"DCIM/1.jpg": 0, "dcim/2.jpg": 0, "3.jpg": 0}, "DCIM")
    assert inventory.findings.counts == {"files_outside_layout": 2}
    assert inventory.table.num_rows == 3


def test_special_characters_of_a_layout_are_literal():
    assert tree({"a.b (é-#) 2/1.jpg": 0, "axb/2.jpg": 0}, "a.b (é-#) 2").findings.counts == {
        "files_outside_layout": 1
    }


@pytest.mark.parametrize("layout", ["", "a//b", "{}", "{a b}", "{a", "a}", "{location}{-}"])
def test_invalid_layout_is_an_error(layout):
    with pytest.raises(ConfigError, match=r"^layout: .* cannot be read; write folders as in"):
        layout_pattern(layout)


def test_layout_with_a_repeated_name_is_an_error():
    with pytest.raises(ConfigError, match=r"names \{location\} twice$"):
        layout_pattern("{location}/{location}")


def test_long_event_is_cut_and_an_image_without_time_is_alone():
    inventory = tree({"1.jpg": 0, "2.jpg": 1, "3.jpg": 2, "4.jpg": None}, max_images=2)
    assert events(inventory) == [["1.jpg", "2.jpg"], ["3.jpg"], ["4.jpg"]]


def test_tree_without_images_is_an_error():
    with pytest.raises(ConfigError, match=r"^root: no image in this folder$"):
        tree({})


part = st.sampled_from(["a", "b", "x y", "é", "\udce9"])
paths = st.lists(part, min_size=1, max_size=4).map("/".join)


@given(
    st.dictionaries(paths, st.none() | st.integers(0, 300), min_size=1),
    st.sampled_from([None, "{location}", "{location}/{deployment}", "a/{deployment}", "*/{x}"]),
)
def test_every_file_is_one_row_with_any_layout(files, layout):
    found = [FoundFile(f"root/{n}", path) for n, path in enumerate(files)]
    times = [None if s is None else START + timedelta(seconds=s) for s in files.values()]
    inventory = read_tree(
        "root",
        TreeImages(found, pa.array(times, pa.timestamp("us"))),
        layout=layout,
        rules=EventRules(gap_s=9, max_images=3),
        allow_unmatched=True,
    )

    uris = inventory.table["image_uri"].to_pylist()
    assert sorted(uris) == sorted(file.uri for file in found)
    given_times = dict(zip((file.uri for file in found), times, strict=True))
    assert [given_times[uri] for uri in uris] == inventory.table["captured_at"].to_pylist()
    assert max(inventory.table["n_images"].to_pylist()) <= 3
    assert "conflicting_metadata" not in inventory.findings.counts
