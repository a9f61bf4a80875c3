import pytest

from ctc_ray.console.summaries import Summary, of_manifest, show
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
    counts = {"a": True, "b": {"x": 1}, "c": ["p", "q"], "d": 1234567, "e": {}}
    show(of_manifest(manifest(summary=counts), output_uri="out"))
    out = capsys.readouterr().out
    for words in ("true", "x 1", "p, q", "1,234,567", "none"):
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
