"""Every row of a csv becomes part of an inventory, or an error names the fault."""

import csv
import io
from datetime import datetime
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError, CtcError, SchemaError
from ctc_ray.inventory.clock_corrections import read_clock_corrections
from ctc_ray.inventory.sources.csv_source import CsvColumns, column_names, read_csv
from ctc_ray.schemas import inventory_schema

PLAIN = CsvColumns(event_column="id", image_columns=("file",), head_columns=("species",))


def test_one_row_per_image_becomes_one_row_per_image(write):
    uri = write("id,file,species\ne,a.jpg,lion\ne,b.jpg,lion\nf,c.jpg,zebra\n")

    inventory = read_csv(uri, PLAIN)

    assert inventory.table.schema.equals(inventory_schema(["species"]))
    assert inventory.table["image_uri"].to_pylist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert inventory.table["n_images"].to_pylist() == [2, 2, 1]
    assert inventory.table["observations"].to_pylist() == [
        [{"species": "lion"}],
        [{"species": "lion"}],
        [{"species": "zebra"}],
    ]
    assert inventory.findings.counts == {"rows_merged": 1}


def test_image_columns_are_in_the_order_given_and_empty_cells_are_skipped(write):
    uri = write("id,i1,i2,i3\ne,a,,c\nf,,,d\ng,x,y,z\n")

    inventory = read_csv(uri, CsvColumns("id", ("i3", "i1", "i2")))

    assert inventory.table["image_uri"].to_pylist() == ["c", "a", "d", "z", "x", "y"]
    assert inventory.table["image_index"].to_pylist() == [0, 1, 0, 0, 1, 2]


def test_empty_label_and_minus_one_are_missing_and_other_labels_verbatim(write):
    labels = ["", "-1", "NA", " Cat ", "cat", "null", "nan", "1.0", "-1 "]
    uri = write("id,file,species\n" + "".join(f"{n},{n},{x}\n" for n, x in enumerate(labels)))

    inventory = read_csv(uri, PLAIN)

    observed = [row[0]["species"] for row in inventory.table["observations"].to_pylist()]
    assert observed == [None, None, *labels[2:]]


def test_further_columns_are_read_and_empty_cells_of_them_are_missing(write):
    uri = write(
        "id,file,site,cam,when,note\n"
        "e,a,S1,C1,2021:04:11 20:43:09,x\n"
        "f,b,,,,\n"
        "g,c,S2,C2,noon,-1\n"
    )  # fmt: skip
    columns = CsvColumns(
        event_column="id",
        image_columns=("file",),
        meta_columns=("note",),
        location_column="site",
        deployment_column="cam",
        captured_at_column="when",
    )

    inventory = read_csv(uri, columns)

    assert inventory.table["location_id"].to_pylist() == ["S1", None, "S2"]
    assert inventory.table["deployment_id"].to_pylist() == ["C1", None, "C2"]
    assert inventory.table["meta_note"].to_pylist() == ["x", None, "-1"]
    assert inventory.table["captured_at"].to_pylist() == [
        datetime(2021, 4, 11, 20, 43, 9),
        None,
        None,
    ]
    assert inventory.findings.counts == {"unreadable_times": 1}
    assert inventory.findings.examples("unreadable_times") == ["c (noon)"]


def test_one_column_may_have_two_roles(write):
    uri = write("id,file,site\ne,a,S1\n")

    inventory = read_csv(
        uri, CsvColumns("id", ("file",), ("site",), ("site",), location_column="site")
    )

    assert inventory.table["location_id"].to_pylist() == ["S1"]
    assert inventory.table["meta_site"].to_pylist() == ["S1"]


def test_byte_order_mark_does_not_hide_the_first_column(write):
    inventory = read_csv(write("\ufeffid,file,species\ne,a,lion\n"), PLAIN)

    assert inventory.table["capture_event_id"].to_pylist() == ["e"]


def test_the_image_may_be_the_events_id(write):
    inventory = read_csv(write("file,species\na,lion\nb,lion\n"), CsvColumns("file", ("file",)))

    assert inventory.table["capture_event_id"].to_pylist() == ["a", "b"]
    with pytest.raises(SchemaError, match="line 3 has no event id"):
        read_csv(write('file,x\na,1\n"",2\n'), CsvColumns("file", ("file",)))


def test_event_without_image_is_counted(write):
    inventory = read_csv(write("id,file,species\ne,,lion\nf,b,lion\n"), PLAIN)

    assert inventory.table["capture_event_id"].to_pylist() == ["f"]
    assert inventory.findings.counts == {"events_without_image": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"the file is empty"),
        ("id,file,species\n", r"there is no row below the header$"),
        ("id,picture,species\ne,a,lion\n", r"column 'file' not found; columns are id, picture"),
        ("id,file,species\ne,a,lion\nf,b\n", r"line 3 has 2 cells, the header 3$"),
        ("id,file,species\ne,a,lion\n\n,b,lion\n", r"line 4 has no event id \(column 'id'\)$"),
        ("id,file,species\ne,,lion\nf,,lion\n", r"no image in 2 rows$"),
        ("id,file,species\n\xe9,a,lion\n".encode("latin1"), r"line 2 is not UTF-8"),
    ],
)
def test_error_names_the_file(write, content, message):
    with pytest.raises(SchemaError, match=r"^[^\n]*source\.csv: " + message):
        read_csv(write(content), PLAIN)


def test_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.csv: no such file$"):
        read_csv(str(tmp_path / "nowhere.csv"), PLAIN)


def test_invalid_column_roles_are_an_error():
    with pytest.raises(ConfigError, match="image_columns names no column"):
        CsvColumns("id", ())
    with pytest.raises(ConfigError, match="without event_column, events are made by gaps in time"):
        CsvColumns(None, ("file",), captured_at_column="when")
    with pytest.raises(ConfigError, match="head_columns names 'species' twice"):
        CsvColumns("id", ("file",), ("species", "species"))


def test_name_of_each_column_is_listed(write):
    assert column_names(write("\ufeffid,file,,file\n")) == ["id", "file", "", "file_2"]


rows = st.lists(
    st.tuples(
        st.sampled_from(["e", "f", "g"]),
        st.sampled_from(["a", "b", "c", ""]),
        st.sampled_from(["lion", "zebra", "", "-1"]),
    ),
    min_size=1,
    max_size=8,
)


def as_csv(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([("id", "file", "species"), *rows])
    return text.getvalue()


@given(rows.filter(lambda rows: any(file for _, file, _ in rows)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_image_of_the_csv_is_in_the_inventory(write, rows):
    table = read_csv(write(as_csv(rows)), PLAIN).table

    found = zip(table["capture_event_id"].to_pylist(), table["image_uri"].to_pylist(), strict=True)
    assert sorted(found) == sorted({(event, file) for event, file, _ in rows if file})


@given(rows, st.integers(0, 8), st.sampled_from(["x", "x,y,z,w", ",,"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_broken_row_is_never_left_out_in_silence(write, rows, index, broken):
    lines = as_csv(rows).splitlines()
    lines.insert(1 + min(index, len(rows)), broken)

    with pytest.raises(CtcError):
        read_csv(write("\n".join(lines)), PLAIN)


BY_TIME = CsvColumns(
    None,
    ("file",),
    ("species",),
    location_column="site",
    deployment_column="cam",
    captured_at_column="when",
)
DAY = "2021-04-11 20:"


def events(inventory) -> list[list[str]]:
    found: dict[str, list[str]] = {}
    ids = inventory.table["capture_event_id"].to_pylist()
    for event, uri in zip(ids, inventory.table["image_uri"].to_pylist(), strict=True):
        found.setdefault(event, []).append(uri)
    return sorted(found.values())


def test_without_event_column_events_are_made_by_gaps_per_camera(write):
    uri = write(
        "file,species,site,cam,when\n"
        f"c,lion,S,1,{DAY}02:00\n"
        f"a,lion,S,1,{DAY}00:10\n"
        f"b,zebra,S,1,{DAY}00:00\n"
        f"d,lion,S,2,{DAY}00:05\n"
        f"e,lion,T,1,{DAY}00:05\n"
        "f,lion,T,1,\n"
    )

    inventory = read_csv(uri, BY_TIME)

    assert events(inventory) == [["b", "a"], ["c"], ["d"], ["e"], ["f"]]
    rows = dict(
        zip(inventory.table["image_uri"].to_pylist(), inventory.table.to_pylist(), strict=True)
    )
    assert rows["a"]["observations"] == [{"species": "zebra"}, {"species": "lion"}]
    assert (rows["d"]["location_id"], rows["d"]["deployment_id"]) == ("S", "2")
    assert rows["a"]["captured_at"] == datetime(2021, 4, 11, 20, 0, 10)
    assert events(read_csv(uri, BY_TIME, gap_s=200)) == [["b", "a", "c"], ["d"], ["e"], ["f"]]
    assert events(read_csv(uri, BY_TIME, gap_s=200, max_images=1)) == [[x] for x in "abcdef"]


def test_rows_of_one_image_are_one_image_and_a_row_without_image_gives_no_label(write):
    uri = write(
        "file,species,site,cam,when\n"
        f"a,lion,S,1,{DAY}00:00\n"
        f",ghost,S,1,{DAY}00:01\n"
        f",ghost,S,1,{DAY}00:02\n"
        f"a,zebra,S,1,{DAY}00:00\n"
        f"b,lion,S,1,{DAY}00:03\n"
    )

    inventory = read_csv(uri, BY_TIME, max_images=2)

    assert events(inventory) == [["a", "b"]]
    assert inventory.table["observations"][0].as_py() == [{"species": "lion"}, {"species": "zebra"}]
    assert inventory.findings.counts["events_without_image"] == 2


def test_ids_of_rows_without_image_depend_on_their_cells_and_not_on_row_order(write):
    lines = [
        f",ghost,S,1,{DAY}00:01\n",
        f",ghost,S,1,{DAY}00:01\n",
        f",lion,S,1,{DAY}00:01\n",
        f"a,lion,S,1,{DAY}00:00\n",
    ]

    found = [
        read_csv(write("file,species,site,cam,when\n" + "".join(order)), BY_TIME).findings
        for order in permutations(lines)
    ]

    ids = [sorted(findings.table()["row"].to_pylist()) for findings in found]
    assert ids == [ids[0]] * len(ids)
    assert len(set(ids[0])) == 3


def test_image_with_several_times_has_the_earliest_in_any_row_order(write):
    header = "file,species,site,cam,when\n"
    lines = [
        f"a,lion,S,1,{DAY}00:00\n",
        f"a,lion,S,1,{DAY}59:00\n",
        "a,lion,S,1,\n",
        f"b,lion,S,1,{DAY}00:10\n",
    ]

    found = [read_csv(write(header + "".join(o)), BY_TIME).table for o in permutations(lines)]

    assert all(table.equals(found[0]) for table in found)
    assert found[0]["image_uri"].to_pylist() == ["a", "b"]
    assert found[0]["captured_at"].to_pylist()[0] == datetime(2021, 4, 11, 20)
    assert found[0]["n_images"].to_pylist() == [2, 2]


def test_images_of_a_row_stay_together_in_the_order_of_the_columns(write):
    uri = write(f"i1,i2,cam,when\nz,y,1,{DAY}00:00\n,a,1,{DAY}00:01\nc,b,1,{DAY}00:02\nq,p,1,\n")
    columns = CsvColumns(None, ("i1", "i2"), deployment_column="cam", captured_at_column="when")

    assert events(read_csv(uri, columns)) == [["q", "p"], ["z", "y", "a", "c", "b"]]
    assert events(read_csv(uri, columns, max_images=2)) == [
        ["a"],
        ["c", "b"],
        ["q", "p"],
        ["z", "y"],
    ]


timed = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"), st.sampled_from(["lion", ""]), st.sampled_from("ST"),
        st.sampled_from(["1", "2", ""]), st.sampled_from(["00:00", "00:30", "02:00", None]),
    ),
    min_size=1,
)  # fmt: skip


@given(timed, st.randoms())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_events_do_not_depend_on_the_order_of_rows_with_different_images(write, rows, random):
    rows = list({row[0]: row for row in rows}.values())

    def made(rows):
        lines = [f"{','.join(row[:4])},{DAY + row[4] if row[4] else ''}" for row in rows]
        return read_csv(write("\n".join(["file,species,site,cam,when", *lines])), BY_TIME)

    once, again = made(rows), made(random.sample(rows, len(rows)))
    assert once.table.equals(again.table)
    assert sorted(once.table["image_uri"].to_pylist()) == sorted(row[0] for row in rows)
    assert "events_across_locations" not in once.findings.counts


HEADS = ("species", "standing", "count")


@pytest.mark.real_data
def test_event_that_repeats_an_image_has_it_once(originals):
    uri = str(originals / "cats_vs_dogs_multi_image.csv")

    inventory = read_csv(uri, CsvColumns("id", ("image1", "image2", "image3"), HEADS))

    assert inventory.table.num_rows == 10
    assert inventory.findings.counts == {"duplicate_images": 2}


@pytest.mark.parametrize("event_column", [None, "id"])
def test_corrected_clocks_are_those_of_the_deployment_else_of_the_location(
    write, tmp_path, event_column
):
    uri = write(
        "id,file,camera,site,time\n"
        "e,a.jpg,A,S,2020-01-01 09:00:00\n"
        "e,b.jpg,A,S,2020-01-01 10:00:30\n"
        "f,c.jpg,B,S,2020-01-01 09:00:00\n"
        "g,d.jpg,,S,2020-01-01 09:00:00\n"
    )
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("deployment,to,shift\nA,2020-01-01 09:30:00,1:00\nS,,-1:00\n")
    columns = CsvColumns(
        event_column,
        ("file",),
        deployment_column="camera",
        location_column="site",
        captured_at_column="time",
    )
    inventory = read_csv(uri, columns, corrections=read_clock_corrections(str(fixes)))
    rows = {row["image_uri"][0]: row for row in inventory.table.to_pylist()}
    assert [rows[n]["captured_at"].hour for n in "abcd"] == [10, 10, 9, 8]
    assert [rows[n]["n_images"] for n in "abcd"] == [2, 2, 1, 1]
    assert inventory.findings.counts["times_corrected"] == 2
