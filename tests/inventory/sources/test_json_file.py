"""An error of a JSON file is one line."""

import pytest

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.inventory.sources.json_file import load_json, objects, text_array, text_column


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "not JSON: "), ("[]", "expected an object, found list"), (b'"\xe9"', "not UTF-8 ")],
)
def test_file_without_an_object_is_an_error(write, content, message):
    with pytest.raises(SchemaError, match=message):
        load_json(write(content))


def test_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_json(str(tmp_path / "a.json"))
    with pytest.raises(ConfigError, match="a folder, not a file"):
        load_json(str(tmp_path))


def test_value_that_is_not_a_list_of_objects_is_an_error():
    with pytest.raises(SchemaError, match="F: key 'images' not found; keys are info"):
        objects({"info": {}}, "images", where="F")
    with pytest.raises(SchemaError, match="F: 'images' must be a list, found dict"):
        objects({"images": {}}, "images", where="F")
    with pytest.raises(SchemaError, match=r"F: images\[1\] must be an object, found 3"):
        objects({"images": [{}, 3]}, "images", where="F")


def test_scalars_become_text_and_other_values_null():
    rows = [{"a": 1}, {"a": "x"}, {"a": ""}, {"a": None}, {"a": [1]}, {}]
    assert text_column(rows, "a", where="F").to_pylist() == ["1", "x", None, None, None, None]
    with pytest.raises(SchemaError, match="F: a a is not valid Unicode"):
        text_column([{"a": "\ud800"}], "a", where="F")


def test_a_number_gives_equal_text_in_every_notation_and_nan_gives_null():
    values = [3, 3.0, 0.5, float("nan"), float("inf"), "nan"]
    found = text_array(values, what="a", where="F").to_pylist()
    assert found == ["3", "3", "0.5", None, None, "nan"]
