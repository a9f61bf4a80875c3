import pyarrow as pa

from ctc_ray.inventory import findings
from ctc_ray.inventory.findings import Findings
from ctc_ray.schemas import finding_schema


def test_nothing_found_is_an_empty_table():
    assert Findings().counts == {}
    assert Findings().table().equals(finding_schema().empty_table())


def test_cases_are_counted_and_keep_their_order():
    found = Findings().counted(rows_merged=7, nothing=0)
    found = found.listed("missing_file", ["b.jpg", "a.jpg"], ["no such file", None])
    found = found.listed("unreadable_time", pa.array(["x"], pa.large_string()))
    assert found.counts == {"rows_merged": 7, "missing_file": 2, "unreadable_time": 1}
    assert found.table().to_pylist() == [
        {"kind": "missing_file", "row": "b.jpg", "detail": "no such file"},
        {"kind": "missing_file", "row": "a.jpg", "detail": None},
        {"kind": "unreadable_time", "row": "x", "detail": None},
    ]
    assert found.examples("missing_file") == ["b.jpg (no such file)", "a.jpg"]


def test_no_case_is_no_finding():
    assert Findings().listed("missing_file", []).counts == {}


def test_two_findings_add_up():
    one = Findings().listed("a", ["1"]).counted(b=2)
    two = Findings().listed("a", ["2"])
    assert one.plus(two).counts == {"a": 2, "b": 2}
    assert one.plus(two).table()["row"].to_pylist() == ["1", "2"]


def test_a_kind_can_be_left_out():
    found = Findings().listed("a", ["1"]).listed("b", ["2"]).counted(c=3)
    assert found.without("a").counts == {"b": 1, "c": 3}
    assert found.without("a").table()["row"].to_pylist() == ["2"]
    assert found.without("c").counts == {"a": 1, "b": 1}


def test_cases_beyond_one_part_keep_their_order_and_count(monkeypatch):
    monkeypatch.setattr(findings, "_ROWS_PER_PART", 3)
    found = Findings().listed("odd", [f"{k}" for k in range(8)], pa.array(["x"] * 8))
    assert [row["row"] for row in found.cases("odd")] == list("01234567")
    assert found.counts == {"odd": 8}
    assert found.table().num_rows == 8
