import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.files.csv_text import csv_chunks, csv_of_records

CELLS = st.text(st.characters(exclude_categories=["Cs"]))
ROWS = st.lists(st.tuples(CELLS, CELLS), max_size=6)


def test_file_by_hand() -> None:
    rows = [["a, b", 'say "c"'], [None, 0.1], ["Ä\nb", 2]]
    expected = 'x,y\r\n"a, b","say ""c"""\r\n,0.1\r\n"Ä\nb",2\r\n'
    assert b"".join(csv_chunks(["x", "y"], [rows])) == expected.encode()


def test_all_cells_can_be_quoted() -> None:
    assert b"".join(csv_chunks(["x"], [[["a"]], [[None]]], quote_all=True)) == (
        b'"x"\r\n"a"\r\n""\r\n'
    )


def test_first_chunk_is_the_header_and_each_part_is_a_chunk() -> None:
    assert list(csv_chunks(["x"], [[["a"], ["b"]], [], [["c"]]])) == [
        *(b"x\r\n", b"a\r\nb\r\n", b"", b"c\r\n")
    ]


@given(ROWS, ROWS)
def test_what_is_written_is_read_again(
    first: list[tuple[str, str]], more: list[tuple[str, str]]
) -> None:
    content = b"".join(csv_chunks(["x", "y"], [first, more])).decode()
    found = list(csv.reader(io.StringIO(content, newline="")))
    assert found == [["x", "y"], *([*map(safe, row)] for row in [*first, *more])]


def safe(cell: str) -> str:
    """Text that a spreadsheet would run as a formula, with an apostrophe in front."""
    is_number = re.fullmatch(r"[+-]?[0-9]+([.,][0-9]*)?", cell)
    return (
        f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not is_number else cell
    )


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=HYPERLINK(A1)", "'=HYPERLINK(A1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("-1", "-1"),
        ("-0.5e-3", "-0.5e-3"),
        ("+12,5", "+12,5"),
        ("a=1", "a=1"),
        (-1.5, "-1.5"),
        (None, ""),
    ],
)
def test_no_cell_is_a_formula_and_numbers_stay(cell: str | float | None, written: str) -> None:
    content = b"".join(csv_chunks(["x", "y"], [[[cell, "z"]]])).decode()
    assert list(csv.reader(io.StringIO(content, newline="")))[1] == [written, "z"]


def test_records_have_the_columns_of_all_and_empty_cells_where_a_key_is_missing() -> None:
    records = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "top5": 1.0, "loss": None}]
    assert csv_of_records(records) == b"epoch,loss,top5\r\n1,0.5,\r\n2,,1.0\r\n"
