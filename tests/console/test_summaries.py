import io
import json

import pytest

from ctc_ray.console.summaries import (
    Summary,
    in_numerical_order,
    numbers_in_order,
    of_manifest,
    show,
)
from ctc_ray.runs.manifest import Manifest


def manifest(**fields: object) -> Manifest:
    return Manifest.model_validate({"kind": "dataset", "config": {}, **fields})


def test_summary_tells_kind_place_images_and_failures(capsys: pytest.CaptureFixture[str]) -> None:
    made = manifest(rows_in=1200, rows_out=1200, failures={"missing": 2}, summary={"shards": 3})
    show(of_manifest(made, output_uri="s3://bucket/dataset"))
    out = capsys.readouterr().out
    for words in ("s3://bucket/dataset", "1,200 of 1,200", "missing 2", "shards"):
        assert words in out


def test_list_of_rows_becomes_a_table_with_missing_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"label": "cat", "count": 3, "share": 0.75}, {"label": None, "count": 1, "share": 0.25}]
    show(of_manifest(manifest(summary={"labels of species": rows}), output_uri="out"))
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["label", "count", "share"] for line in lines)
    assert any(line.split() == ["(missing)", "1", "0.25"] for line in lines)


def test_values_are_written_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"a": True, "b": {"x": 1}, "c": ["p", "q"], "d": 1234567}
    show(of_manifest(manifest(summary=counts), output_uri="out"))
    out = capsys.readouterr().out
    for words in ("true", "x 1", "p, q", "1,234,567"):
        assert words in out


def test_nothing_in_a_table_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"s3://bucket/{'x' * 300}/:dog: [red].jpg"
    show(Summary([("images", "1")], {}, [("failed images", [{"image_uri": uri, "n": 1}])]))
    assert uri in capsys.readouterr().out


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show(Summary([("a", "\x1b]0;")], {}, [("t", [{"b\x07": "c\x9b"}])], text="d\x1b\ne"))
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b"} & set(out)
    assert r"a  \x1b]0;" in out
    assert out.endswith("d\\x1b\ne\n")


def text(summary: Summary, width: int | None = None) -> str:
    out = io.StringIO()
    show(summary, file=out, width=width)
    return out.getvalue()


def test_zeros_false_and_empty_are_left_out_for_people_only() -> None:
    counts = {"events": 0, "stops": False, "left_out": [], "found": {}, "val_loss": 0.0, "n": 1}
    summary = of_manifest(manifest(summary=counts), output_uri="out")
    assert [name for name, _ in summary.facts] == ["dataset", "val loss", "n"]
    assert summary.values["summary"] == counts
    assert json.loads(json.dumps(summary.values)) == summary.values


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"hours": 9.55e-05}, "time     0.3 s"),
        ({"hours": 3.5}, "time     3 h 30 min"),
        ({"output_gb": 0.000154}, "output   154 kB"),
        ({"output_gb": 1234.0}, "output   1.23 TB"),
        ({"megabytes": 44.7}, "size     44.7 MB"),
    ],
)
def test_numbers_have_the_unit_that_suits_them(counts: dict[str, float], line: str) -> None:
    assert line in text(of_manifest(manifest(summary=counts), output_uri="o")).splitlines()


def test_classes_that_are_numbers_are_shown_in_numerical_order() -> None:
    assert numbers_in_order(["1", "10", "11-50", "2", "51+"]) == ["1", "2", "10", "11-50", "51+"]
    assert numbers_in_order(["1", "10", "2", "cat"]) == ["1", "10", "2", "cat"]
    rows = [{"head": "n", "class": name} for name in ("1", "10", "2")]
    rows += [{"head": "s", "class": name} for name in ("b", "a", "10", "9")]
    ordered = [row["class"] for row in in_numerical_order(rows)]
    assert ordered == ["1", "2", "10", "b", "a", "10", "9"]


def test_what_is_missing_stands_behind_the_numbers() -> None:
    rows = [{"label": name, "count": 1} for name in ("10", None, "2")]
    assert [row["label"] for row in in_numerical_order(rows)] == ["2", "10", None]
    summary = of_manifest(manifest(summary={"labels": rows}), output_uri="o")
    assert summary.values["summary"]["labels"] == rows


def test_a_table_fits_the_terminal_and_loses_nothing() -> None:
    row = {f"val_accuracy_{i}": f"value{i}" * 4 for i in range(8)}
    summary = Summary([("images", "word " * 40)], {}, [("trials", [row])])
    lines = text(summary, width=80).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("        word")
    joined = "".join("".join(lines).split())
    assert joined.count("value") >= 1
    for letters in row.values():
        assert set(letters) <= set(joined)


def test_a_long_table_is_cut_on_a_terminal_and_says_so() -> None:
    rows = [{"class": f"c{i}", "events": 1} for i in range(100)]
    summary = Summary([("images", "1")], {}, [("classes", rows)])
    assert "and 40 more rows; --json prints all" in text(summary, width=80)
    assert "c99" not in text(summary, width=80)
    assert "c99" in text(summary)
