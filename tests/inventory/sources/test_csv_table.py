"""Cells of a csv are read verbatim; an error names the line."""

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.inventory.sources.csv_table import (
    QuoteFoundError,
    UnquotedStream,
    column_names,
    line_of_empty_cell,
    read_columns,
)


def test_cells_are_verbatim_text(write):
    uri = write('id,species,n\n1, Cat ,007\n2,NA,\n"3","say ""hi"", x",1e3\n')

    assert read_columns(uri, ["species", "n"]).to_pydict() == {
        "species": [" Cat ", "NA", 'say "hi", x'],
        "n": ["007", "", "1e3"],
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends_do_not_matter(write, end, bom):
    uri = write(bom + end.join(["id,file", "é,a", "2,b"]).encode())

    assert column_names(uri) == ["id", "file"]
    assert read_columns(uri, ["id", "file"]).to_pydict() == {"id": ["é", "2"], "file": ["a", "b"]}


def test_blank_lines_are_left_out_anywhere(write):
    uri = write("\n\nid,file\n\n1,a\n   \n2,b\n\n")

    assert read_columns(uri, ["id"]).to_pydict() == {"id": ["1", "2"]}


def test_quoted_cells_and_names_may_hold_line_ends(write):
    uri = write('"i\nd",file\n"1\n2",a\n3,b\n')

    assert column_names(uri) == ["i\nd", "file"]
    assert read_columns(uri, ["i\nd"]).to_pydict() == {"i\nd": ["1\n2", "3"]}


def test_the_second_of_two_columns_with_one_name_has_another(write):
    uri = write("id,file,file\n1,a,b\n")

    assert column_names(uri) == ["id", "file", "file_2"]
    assert read_columns(uri, ["file", "id"]).to_pydict() == {"file": ["a"], "id": ["1"]}
    assert read_columns(uri, ["file_2"]).to_pydict() == {"file_2": ["b"]}


def test_header_alone_has_no_rows(write):
    assert read_columns(write("id,file\n"), ["id"]).num_rows == 0
    with pytest.raises(SchemaError, match=r"source\.csv: there is no row below the header$"):
        read_columns(write("id,file"), ["id"])


def test_error_of_a_missing_column_lists_the_columns(write):
    uri = write("id,file,species\n1,a,lion\n")

    with pytest.raises(
        SchemaError,
        match=r"source\.csv: column 'event' not found; columns are id, file, species$",
    ):
        read_columns(uri, ["id", "event"])


def test_error_of_a_single_column_names_the_delimiters(write):
    with pytest.raises(SchemaError, match=r"columns are id\|file .*by comma, semicolon or tab"):
        read_columns(write("id|file\n1|a\n"), ["id"])


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("id;file", ["id", "file"]),
        ("id\tfile", ["id", "file"]),
        ('id;"a,b,c"', ["id", "a,b,c"]),
        ('"a;b;c",id', ["a;b;c", "id"]),
        ('"say "",,,""";id', ['say ",,,"', "id"]),
        ('"i,\n,d"\tfile', ["i,\n,d", "file"]),
        ("a;b,c", ["a;b", "c"]),
        ('4"x,id', ['4"x', "id"]),
        ("\n\nid;file", ["id", "file"]),
    ],
)
def test_delimiter_is_the_most_frequent_one_outside_of_quotes_in_the_header(write, header, names):
    assert column_names(write(header + "\n")) == names


def test_commas_in_cells_are_text_if_the_delimiter_is_a_semicolon(write):
    uri = write('id;file;note\n1;a.jpg;1,5\n2;"b;c.jpg";\n')

    assert read_columns(uri, ["file", "note"]).to_pydict() == {
        "file": ["a.jpg", "b;c.jpg"],
        "note": ["1,5", ""],
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("broken", ["2", "2{0}b{0}c", "{0}{0}"])
def test_line_of_a_broken_row_is_right_for_every_delimiter(write, delimiter, broken):
    rows = ["id{0}file", "1{0}a", "", '"x\ny"{0}b', broken]
    uri = write("\n".join(rows).format(delimiter) + "\n")

    with pytest.raises(SchemaError, match=r"line 6 has \d cells?, the header 2$"):
        read_columns(uri, ["id"])


@pytest.mark.parametrize(
    ("rows", "line", "n_cells"),
    [
        (["1,a", "2", "3,c"], 3, 1),
        (["1,a", "2,b,c"], 3, 3),
        (["1,a", "", "  ", '"x', 'y",b', "2"], 7, 1),
    ],
)
def test_short_or_long_row_is_named_by_its_line(write, rows, line, n_cells):
    uri = write("\n".join(["id,file", *rows]) + "\n")

    with pytest.raises(
        SchemaError, match=rf"source\.csv: line {line} has {n_cells} cells?, the header 2$"
    ):
        read_columns(uri, ["id"])


def test_short_row_far_down_is_named_by_its_line(write):
    rows = [f"{n:09d},{'x' * 90}.jpg" for n in range(200_000)]  # more than one block
    rows[190_000] = "only one cell"
    uri = write("id,file\n" + "\n".join(rows))

    with pytest.raises(SchemaError, match=r"line 190002 has 1 cell, the header 2"):
        read_columns(uri, ["id"])


@pytest.mark.parametrize("rows", ['1,"a\n2,b\n3,c\n', '1,a\n2,"b\n' + "3,c\n" * 50_000])
def test_quote_that_is_never_closed_is_an_error(write, rows):
    with pytest.raises(SchemaError, match=r"source\.csv: line [23] opens a quote: "):
        read_columns(write("id,file\n" + rows), ["id"])


@pytest.mark.parametrize("content", ['id,"file\n' + "1,a\n" * 50_000, "\0" * 200_000])
def test_header_without_an_end_is_an_error_of_one_line(write, content):
    with pytest.raises(
        SchemaError, match=r"^\S+source\.csv: the header line opens a quote .* \(131072\)$"
    ):
        column_names(write(content))


def test_row_longer_than_can_be_read_is_named_by_its_line(write):
    rows = "".join(f"{n},{n:090d}.jpg\n" for n in range(200_000))

    with pytest.raises(
        SchemaError, match=r"source\.csv: line 3 begins a row of more than 8 MiB; does it open a qu"
    ):
        read_columns(write('id,file\n1,a\n2,"b\n' + rows), ["id"])


def test_error_of_arrow_becomes_one_line(write):
    rows = "".join(f"{n},{n}.jpg\n" for n in range(50_000))
    with pytest.raises(SchemaError, match=r"^\S+source\.csv: line 2 has 1 cell, the header 2$"):
        read_columns(write('id,file\n"1,a\n' + rows), ["id"])


def test_last_cell_may_hold_line_ends(write):
    assert read_columns(write('id,file\n1,"a\nb"\n'), ["id"]).num_rows == 1
    long = "x" * 200_000  # more than Python's csv reads by default
    assert read_columns(write(f'id,file\n{long},a\n1,"a\nb"\n'), ["id"]).num_rows == 2


@pytest.mark.parametrize("content", ["", "\n\n", b"\xef\xbb\xbf"])
def test_empty_file_is_an_error(write, content):
    with pytest.raises(SchemaError, match=r"source\.csv: the file is empty"):
        column_names(write(content))


def test_file_that_is_not_utf8_is_an_error_with_its_line(write):
    with pytest.raises(SchemaError, match=r"source\.csv: line 3 is not UTF-8"):
        read_columns(write("id,file\n1,a\né,b\n".encode("cp1252")), ["id"])
    with pytest.raises(SchemaError, match=r"source\.csv: line 1 is not UTF-8"):
        column_names(write("éd,file\n1,a\n".encode("cp1252")))
    with pytest.raises(SchemaError, match=r"source\.csv: line 1 is not UTF-8"):
        column_names(write("id,file\n1,a\n".encode("utf-32")))


def test_path_without_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.csv: no such file$"):
        read_columns(str(tmp_path / "nowhere.csv"), ["id"])
    with pytest.raises(ConfigError, match=r"a folder, not a file$"):
        column_names(str(tmp_path))


def test_line_of_the_first_empty_cell(write):
    uri = write('id,file\n1,"a\nb"\n\n,c\n,d\n')

    assert line_of_empty_cell(uri, "id") == 5
    assert line_of_empty_cell(uri, "file") is None


cell = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=6)


@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=6), st.sampled_from(",;\t"))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_csv_that_python_writes_is_read_back(write, rows, delimiter):
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, delimiter=delimiter)
    writer.writerows([("id", "file"), *rows])

    table = read_columns(write(text.getvalue()), ["id", "file"])

    assert [tuple(row.values()) for row in table.to_pylist()] == rows


def test_stream_gives_its_bytes_until_a_quote():
    stream = UnquotedStream(io.BytesIO(b'a,b\n1,"2'))

    assert stream.read(4) == b"a,b\n"
    with pytest.raises(QuoteFoundError):
        stream.read(100)


def test_a_quote_after_the_first_block_is_read_as_a_quote(tmp_path):
    plain = "".join(f"{n},{n:0100}\n" for n in range(100_000))  # 10 MB, a block has 8 MiB
    csv = tmp_path / "rows.csv"
    csv.write_text(f'id,file\n{plain}x,"a\nb,c"\n', newline="")

    table = read_columns(str(csv), ["id", "file"])

    assert table.num_rows == 100_001
    assert table.slice(99_999).to_pylist() == [
        {"id": "99999", "file": f"{99_999:0100}"},
        {"id": "x", "file": "a\nb,c"},
    ]
