"""A csv becomes an inventory whole, or an error says what is wrong with it."""

import csv
import io
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError, CtcError, SchemaError
from ctc_ray.inventory.csv_source import CsvColumns, column_names, read_csv
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


def test_empty_label_and_minus_one_are_missing_and_all_else_is_verbatim(write):
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
def test_what_is_wrong_is_said_with_the_file(write, content, message):
    with pytest.raises(SchemaError, match=r"^[^\n]*source\.csv: " + message):
        read_csv(write(content), PLAIN)


def test_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.csv: no such file$"):
        read_csv(str(tmp_path / "nowhere.csv"), PLAIN)


def test_columns_without_sense_are_an_error():
    with pytest.raises(ConfigError, match="image_columns names no column"):
        CsvColumns("id", ())
    with pytest.raises(ConfigError, match="head_columns names 'species' twice"):
        CsvColumns("id", ("file",), ("species", "species"))


def test_name_of_each_column_is_listed(write):
    assert column_names(write("\ufeffid,file,,file\n")) == ["id", "file", ""]


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
def test_broken_row_is_never_left_out_in_silence(write, rows, place, broken):
    lines = as_csv(rows).splitlines()
    lines.insert(1 + min(place, len(rows)), broken)

    with pytest.raises(CtcError):
        read_csv(write("\n".join(lines)), PLAIN)


HEADS = ("species", "standing", "count")


@pytest.mark.real_data
def test_single_images_are_read_as_the_original_read_them(originals, goldens, as_records):
    uri = str(originals / "dataset_single_image_multi_species.csv")

    inventory = read_csv(uri, CsvColumns("capture_id", ("image",), HEADS))

    found = as_records(inventory)
    assert found["ele_zebra_diff_image"]["images"].pop() == "/path/capture_ele_zebra2.jpg"  # new
    assert found == goldens["single_csv"]
    assert inventory.findings.counts == {
        "rows_merged": 2,
        "duplicate_images": 1,
        "events_without_image": 1,
        "events_with_several_observations": 2,
    }


@pytest.mark.real_data
def test_several_images_are_read_as_the_original_read_them(originals, goldens, as_records):
    uri = str(originals / "dataset_multi_image_multi_species.csv")

    inventory = read_csv(uri, CsvColumns("capture_id", ("image1", "image2", "image3"), HEADS))

    assert as_records(inventory) == goldens["multi_image_csv"]


@pytest.mark.real_data
def test_verbatim_labels_are_as_the_original_kept_them(write, goldens, as_records):
    columns = CsvColumns("id", ("image",), ("species",))
    header = "id,image,species\n"

    na = read_csv(write(header + "1,a.jpg,NA\n"), columns)
    assert as_records(na) == goldens["edge"]["na"]
    case = read_csv(write(header + "1,a.jpg, Cat \n2,b.jpg,cat\n"), columns)
    assert as_records(case) == goldens["edge"]["case_ws"]


@pytest.mark.real_data
def test_event_that_repeats_an_image_has_it_once(originals):
    uri = str(originals / "cats_vs_dogs_multi_image.csv")

    inventory = read_csv(uri, CsvColumns("id", ("image1", "image2", "image3"), HEADS))

    assert inventory.table.num_rows == 10
    assert inventory.findings.counts == {"duplicate_images": 2}
