import numpy as np
import pyarrow as pa
import pytest

from ctc_ray.errors import ConfigError
from ctc_ray.selection.class_mapping import map_classes, read_mapping


def written(tmp_path, text, name="map.yaml"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_csv_and_yaml_give_equal_mappings(tmp_path):
    csv = written(tmp_path, "head,from,to\nspecies,no,yes\nspecies,none,\ncount,1,few\n", "m.csv")
    yaml = written(tmp_path, "species: {no: yes, none: ~}\ncount:\n  1: few\n")
    assert read_mapping(csv) == read_mapping(yaml)
    assert read_mapping(yaml) == {"species": {"no": "yes", "none": None}, "count": {"1": "few"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s: {a: b, a: c}", "s=a is mapped to 'b' and to 'c'"),
        ("s: {a: b, b: c}", "s=a is mapped to 'b', which is mapped to 'c'"),
        ("s: [a]", "head: {from: to}"),
        ("s: {a: [b]}", "s=a must be mapped to one name"),
        ("s: {a", "not YAML"),
        ("? [s, t]\n: {a: b}", "head: {from: to}"),
        ("s: {? [a, b] : c}", "head: {from: to}"),
    ],
)
def test_invalid_mapping_is_an_error(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_mapping(written(tmp_path, text))


def test_folder_instead_of_a_mapping_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="a folder, not a class mapping"):
        read_mapping(str(tmp_path))


def test_minus_one_is_a_missing_label_as_in_a_csv_of_labels(tmp_path):
    for name, text in (("m.csv", "head,from,to\ns,a,-1\n"), ("m.yaml", "s: {a: -1}")):
        assert read_mapping(written(tmp_path, text, name)) == {"s": {"a": None}}


def test_classes_are_merged_renamed_or_become_missing():
    lists = pa.array([[{"s": "a"}, {"s": "b"}], None, [], [{"s": "c"}, {"s": None}]])
    table = pa.table({"n": np.arange(4), "observations": lists}).slice(0, 4)
    mapped = map_classes(table, {"s": {"a": "b", "c": None, "zz": "b"}})
    assert mapped.table["observations"].to_pylist() == [
        [{"s": "b"}, {"s": "b"}], None, [], [{"s": None}, {"s": None}],
    ]  # fmt: skip
    assert mapped.unused == ("s=zz",)
    sliced = map_classes(table.slice(2), {"s": {"c": "d"}}).table
    assert sliced["observations"].to_pylist() == [[], [{"s": "d"}, {"s": None}]]


def test_unknown_head_names_the_heads():
    table = pa.table({"observations": pa.array([[{"s": "a"}]])})
    with pytest.raises(ConfigError, match="'t' not found; heads are s"):
        map_classes(table, {"t": {"a": "b"}})
