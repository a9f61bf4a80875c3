"""Tables as spreadsheets, Windows programs and the tools of the field write them."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.inventory.sources.coco import read_coco
from ctc_ray.inventory.sources.csv_columns import CsvColumns
from ctc_ray.inventory.sources.csv_source import read_csv
from ctc_ray.inventory.sources.csv_table import column_names
from ctc_ray.inventory.sources.original_json import read_json

BY_EVENT = CsvColumns(event_column="id", image_columns=("file",), head_columns=("species",))


def uris(inventory) -> list[str]:
    return inventory.table["image_uri"].to_pylist()


# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "coco", "json"])
def test_back_slashes_become_slashes_and_are_counted(write, kind: str) -> None:
    path = "Site 1\\100EK113\\IMG_0000.JPG"
    if kind == "csv":
        found = read_csv(write(f"id,file,species\ne1,{path},fox\ne2,b/c.jpg,fox\n"), BY_EVENT)
    elif kind == "coco":
        images = [{"id": 1, "file_name": path}, {"id": 2, "file_name": "b/c.jpg"}]
        found = read_coco(
            write(json.dumps({"images": images, "annotations": [], "categories": []})), gap_s=60
        )
    else:
        records = {"e1": path, "e2": "b/c.jpg"}
        of = {k: {"labels": [{"species": "fox"}], "images": [v]} for k, v in records.items()}
        found = read_json(write(json.dumps(of)))
    assert sorted(uris(found)) == ["Site 1/100EK113/IMG_0000.JPG", "b/c.jpg"]
    assert found.findings.counts["windows_paths"] == 1


def test_a_uri_keeps_its_back_slash(write) -> None:
    found = read_csv(write("id,file,species\ne1,s3://b/odd\\name.jpg,fox\n"), BY_EVENT)
    assert uris(found) == ["s3://b/odd\\name.jpg"]
    assert "windows_paths" not in found.findings.counts


@pytest.mark.parametrize(
    ("start", "prefix"),
    [("D:\\survey", "D:/survey"), ("C:/x/root", "C:/x/root"), ("\\\\nas\\share", "//nas/share")],
)
def test_absolute_paths_of_windows_are_one_line_that_says_how(write, start, prefix) -> None:
    rows = [f"e{n},{start}\\Site {n}\\IMG.JPG,fox" for n in range(3)]
    table = write("\n".join(["id,file,species", *rows]) + "\n")
    with pytest.raises(ConfigError, match="3 image paths are absolute paths of Windows") as raised:
        read_csv(table, BY_EVENT)
    assert f'--strip-prefix "{prefix}"' in str(raised.value)
    columns = CsvColumns(event_column="id", image_columns=("file",), strip_prefix=start)
    assert uris(read_csv(table, columns)) == [f"Site {n}/IMG.JPG" for n in range(3)]


def test_a_prefix_that_no_path_has_is_an_error_with_the_first_path(write) -> None:
    columns = CsvColumns(event_column="id", image_columns=("file",), strip_prefix="/mnt/dat")
    with pytest.raises(ConfigError, match=r"--strip-prefix /mnt/dat; the first is /mnt/data/a.jpg"):
        read_csv(write("id,file\ne1,/mnt/data/a.jpg\n"), columns)


def test_a_path_may_come_from_several_columns(write) -> None:
    table = write(
        "File,RelativePath,id,Species\nIMG_0.JPG,Site A\\cam,1,fox\n,Site B,2,\n"
        "IMG_0.JPG,,3,fox\nIMG_1.JPG,Site A/,4,fox\n"
    )
    columns = CsvColumns(event_column="id", path_columns=("RelativePath", "File"))
    found = read_csv(table, columns)
    assert uris(found) == ["Site A/cam/IMG_0.JPG", "IMG_0.JPG", "Site A/IMG_1.JPG"]
    assert found.empty_events["capture_event_id"].to_pylist() == ["2"]


def test_a_label_may_come_from_several_columns(write) -> None:
    table = write("id,file,genus,species\n1,a.jpg,Vulpes,vulpes\n2,b.jpg,Vulpes,\n3,c.jpg,,\n")
    heads = ("species=genus+species", "genus")
    columns = CsvColumns(event_column="id", image_columns=("file",), head_columns=heads)
    found = read_csv(table, columns)
    labels = [row[0] for row in found.table["observations"].to_pylist()[:2]]
    assert labels == [
        {"species": "Vulpes vulpes", "genus": "Vulpes"},
        {"species": "Vulpes", "genus": "Vulpes"},
    ]
    assert found.heads == ("species", "genus")


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("quoted", [False, True])
def test_utf_16_with_its_mark_is_read_like_utf_8(write, encoding: str, quoted: bool) -> None:
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    site = '"Élan,\n𝄞"' if quoted else "Élan 𝄞"
    rows = "".join(f"{n}\t{n}.jpg\t{site}\r\n" for n in range(20_000))
    found = read_csv(write((mark + "id\tfile\tspecies\r\n" + rows).encode(encoding)), BY_EVENT)
    assert found.images.n_events == 20_000
    assert found.table["observations"][7].as_py() == [{"species": site.strip('"')}]


def test_a_cut_utf_16_file_is_one_line(write) -> None:
    content = "id\tfile\tspecies\r\n1\ta.jpg\tfox\r\n".encode("utf-16")
    with pytest.raises(SchemaError, match="UTF-16"):
        read_csv(write(content[:-1]), BY_EVENT)


@pytest.mark.parametrize("separator", [";", ",", "\t", "|"])
@pytest.mark.parametrize("before", ["", "\r\n", '"'])
def test_a_first_line_may_name_the_separator(write, separator: str, before: str) -> None:
    lines = [f"sep={separator}", *(separator.join(r) for r in (("id", "file"), ("1", "a,b;c.jpg")))]
    if before == '"':
        before, lines[0] = "", f'"{lines[0]}"'
    content = before + "\r\n".join(lines) + "\r\n"
    if separator in ",;":
        content = content.replace("a,b;c.jpg", '"a,b;c.jpg"')
    columns = CsvColumns(event_column="id", image_columns=("file",))
    assert uris(read_csv(write(content), columns)) == ["a,b;c.jpg"]


def test_an_error_below_a_separator_line_names_the_right_line(write) -> None:
    with pytest.raises(SchemaError, match="line 4 has 3 cells, the header 2"):
        read_csv(write("sep=;\nid;file\n1;a.jpg\n2;b.jpg;x\n"), BY_EVENT.__class__("id", ("file",)))


def test_columns_of_one_name_are_all_kept(write) -> None:
    table = write("id,site,file,site,site_2,site\n1,a,x.jpg,b,c,d\n")
    names = column_names(table)
    assert names == ["id", "site", "file", "site_3", "site_2", "site_4"]
    columns = CsvColumns(
        event_column="id", image_columns=("file",), meta_columns=tuple(names[1:2] + names[3:])
    )
    (row,) = read_csv(table, columns).table.to_pylist()
    assert [row[f"meta_{name}"] for name in ("site", "site_2", "site_3", "site_4")] == list("acbd")


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2021/05/03 13:00:00", (2021, 5, 3, 13)),
        ("2021-5-3 9:00:00", (2021, 5, 3, 9)),
        ("2021.05.03 09:00", (2021, 5, 3, 9)),
        ("13.05.2021 13:00", (2021, 5, 13, 13)),
        ("5/13/2021 1:00:00 PM", (2021, 5, 13, 13)),
        ("5/13/2021 12:00 am", (2021, 5, 13, 0)),
        ("5/13/2021 12:00 PM", (2021, 5, 13, 12)),
        ("31-12-2021 23:59:59", (2021, 12, 31, 23, 59, 59)),
        ("5/3/2021 1:00:00 PM", None),
        ("03.05.2021 13:00", None),
        ("31.06.2021 13:00", None),
        ("13/13/2021 13:00", None),
        ("5/13/2021 13:00 PM", None),
        ("5/13/2021 0:30 AM", None),
    ],
)
def test_day_and_month_are_never_guessed(write, text: str, time: tuple[int, ...] | None) -> None:
    columns = CsvColumns(event_column="id", image_columns=("file",), captured_at_column="when")
    found = read_csv(write(f"id,file,when\n1,a.jpg,{text}\n2,b.jpg,2021-01-01 00:00\n"), columns)
    expected = None if time is None else datetime(*time)
    assert found.table["captured_at"].to_pylist() == [expected, datetime(2021, 1, 1)]
    assert found.findings.counts.get("unreadable_times", 0) == (time is None)


def test_a_form_of_time_is_taken_as_it_is_given(write) -> None:
    table = write("id;file;when\n1;a.jpg;03.05.2021 13:00\n2;b.jpg;31.06.2021 13:00\n3;c.jpg;\n")
    columns = CsvColumns(
        event_column="id",
        image_columns=("file",),
        captured_at_column="when",
        time_format="%d.%m.%Y %H:%M",
    )
    found = read_csv(table, columns)
    assert found.table["captured_at"].to_pylist() == [datetime(2021, 5, 3, 13), None, None]
    assert found.findings.counts["unreadable_times"] == 1


@pytest.mark.parametrize("form", ["%Q", "%d.%m.%Y", "%H:%M", "nonsense"])
def test_what_is_no_form_of_a_time_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match="time_format"):
        CsvInventoryConfig(
            source_uri="a.csv", output_uri="o", event_column="id", image_columns=("f",),
            captured_at_column="when", time_format=form,
        )  # fmt: skip


# -- whole files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("03-windows-paths/relative.csv", BY_EVENT, "Site 1/100EK113/IMG_0000.JPG"),
        ("11-csv-from-spreadsheets/sepline.csv", BY_EVENT, "0.jpg"),
        ("11-csv-from-spreadsheets/utf16.csv", BY_EVENT, "0.jpg"),
        (
            "12-tables-of-other-tools/timelapse.csv",
            CsvColumns(
                event_column=None,
                path_columns=("RelativePath", "File"),
                head_columns=("Species", "Count"),
                captured_at_column="DateTime",
                location_column="RelativePath",
            ),
            "Site A/IMG_0000.JPG",
        ),
        (
            "12-tables-of-other-tools/camtrapR_recordTable.csv",
            CsvColumns(
                event_column=None,
                path_columns=("Directory", "FileName"),
                head_columns=("Species",),
                captured_at_column="DateTimeOriginal",
                location_column="Station",
                strip_prefix="C:/x/root",
            ),
            "Site A/IMG_0000.JPG",
        ),
        (
            "12-tables-of-other-tools/wi_images.csv",
            CsvColumns(
                event_column=None,
                image_columns=("location",),
                head_columns=("species=genus+species",),
                captured_at_column="timestamp",
                deployment_column="deployment_id",
            ),
            "gs://b/A/0.JPG",
        ),
    ],
)
def test_tables_of_other_programs_are_read_without_a_script(
    shared_data: Path, name: str, columns: CsvColumns, expected: str
) -> None:
    table = shared_data.parent / "cases" / name
    found = read_csv(str(table), columns)
    assert expected in uris(found)
    root = table.parent / "root"
    if "gs:" not in expected:
        assert all((root / uri).is_file() for uri in uris(found))


def test_image_uris_with_credentials_are_refused_and_not_shown(write) -> None:
    table = write("id,file,species\ne1,s3://AKIAKEY:S3CR3T@b/x.jpg,fox\ne2,a.jpg,fox\n")
    with pytest.raises(ConfigError, match="1 image URIs hold credentials") as raised:
        read_csv(table, BY_EVENT)
    assert "S3CR3T" not in str(raised.value)
    assert "AWS_ACCESS_KEY_ID" in str(raised.value)
