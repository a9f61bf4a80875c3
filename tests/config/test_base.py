import importlib
import pkgutil
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

import ctc_ray.config
from ctc_ray.config.base import (
    Config,
    StageConfig,
    build,
    merge,
    read_yaml,
    to_yaml,
)
from ctc_ray.config.keys import option_name, submodel
from ctc_ray.config.show import ShowConfig
from ctc_ray.errors import ConfigError, UsageError


class Lens(Config):
    """A part."""

    focal_length: float = Field(35, gt=0)
    """Millimetres."""
    maker: str = "ours"
    """Name."""


class Shoot(StageConfig):
    """A stage."""

    operational: ClassVar[frozenset[str]] = StageConfig.operational | {"flashes"}

    names: tuple[str, ...]
    """Names."""
    lens: Lens = Lens()
    """Lens."""
    spare: Lens | None = None
    """Another lens."""
    flashes: int = 0
    """Flashes."""


VALUES = {"output_uri": "out", "names": ["a"]}


def models() -> list[type[Config]]:
    """Every configuration model of the package."""
    for module in pkgutil.iter_modules(ctc_ray.config.__path__):
        importlib.import_module(f"ctc_ray.config.{module.name}")
    found, todo = [], [Config]
    while todo:
        below = todo.pop().__subclasses__()
        found += below
        todo += below
    return [model for model in found if model.__module__.startswith("ctc_ray.config.")]


MODELS = models()


def refused(values: dict) -> str:
    with pytest.raises(ConfigError) as raised:
        build(Shoot, {**VALUES, **values}, where="shoot.yaml")
    message = str(raised.value)
    assert message.startswith("shoot.yaml: ")
    assert "\n" not in message
    return message.removeprefix("shoot.yaml: ")


# -- every model of the command line ---------------------------------------------------------------


def test_the_models_are_found():
    names = {model.__name__ for model in MODELS}
    assert {"TrainConfig", "PredictConfig", "ModelConfig", "DemoConfig"} <= names


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_each_model_and_each_field_is_described(model):
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert field.description.rstrip().endswith("."), f"{model.__name__}.{name}"


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_each_model_is_frozen_and_refuses_unknown_keys(model):
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"


def options(model: type[Config], prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        below = submodel(field.annotation)
        names += options(below, f"{prefix}{name}.") if below else [option_name(prefix + name)]
    return names


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_each_option_has_a_name_of_its_own(model):
    names = options(model)
    assert len(set(names)) == len(names)
    general = {"--json", "--help", "--version"}
    if model is not ShowConfig:  # its --config is a file of `ctc train`
        general.add("--config")
    assert not general & set(names)
    switches = {name.replace("--", "--no-", 1) for name in names}
    assert not switches & set(names)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_defaults_are_valid(model):
    for name, field in model.model_fields.items():
        below = submodel(field.annotation)
        if below and field.default is not None:
            assert below.model_validate(field.default.model_dump()) == field.default, name


@pytest.mark.parametrize(
    "model", [m for m in MODELS if issubclass(m, StageConfig)], ids=lambda m: m.__name__
)
def test_what_is_operational_is_a_field(model):
    assert model.operational <= set(model.model_fields)
    assert {"output_uri", "overwrite"} <= model.operational


# -- building --------------------------------------------------------------------------------------


def test_values_become_a_config():
    config = build(Shoot, {**VALUES, "lens": {"focal_length": "50"}}, where="shoot.yaml")
    assert config.lens == Lens(focal_length=50)
    assert config.names == ("a",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lense": {}}, "lense is not a setting; did you mean lens?"),
        (
            {"lens": {"focal_lenght": 1}},
            "lens.focal_lenght is not a setting; did you mean lens.focal_length?",
        ),
        ({"focal_length": 1}, "focal_length is not a setting; did you mean lens.focal_length?"),
        ({"spare": {"make": "x"}}, "spare.make is not a setting; did you mean spare.maker?"),
        ({"lens": {"zzz": 1}}, "lens.zzz is not a setting; settings are lens.focal_length, lens.m"),
        ({"names": None}, "names is None; expected a list"),
        ({"lens": {"focal_length": 0}}, "lens.focal_length is 0; expected more than 0"),
        ({"lens": {"focal_length": float("inf")}}, "lens.focal_length is inf; expected a finite"),
        ({"lens": {"focal_length": float("nan")}}, "lens.focal_length is nan; "),
        ({"lens": 35}, "lens is 35; its values are given one by one, as lens.NAME"),
        ({"names": ["a", "b", "a"]}, "names is ['a', 'b', 'a']: a name is given twice"),
        ({"names": ["a", 1]}, "names is 1; expected text"),
        ({"flashes": "many\nmany"}, r"flashes is 'many\nmany'; expected a whole number"),
        ({"flashes": 1.5}, "flashes is 1.5; expected a whole number"),
        ({"output_uri": ""}, "output_uri is ''; expected some text"),
        ({1: 2}, "1 is 1: Keys should be strings"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(values, message):
    assert refused(values).startswith(message)


def test_a_missing_value_names_its_option():
    with pytest.raises(ConfigError, match=r"^command line: output_uri is required \(option --outp"):
        build(Shoot, {"names": ["a"]}, where="command line")


def test_all_mistakes_are_named_at_once():
    wrong = {"lense": 1, "flashs": 1, "lens": {"make": 1}, "flashes": "x"}
    with pytest.raises(UsageError) as raised:
        build(Shoot, wrong, where="shoot.yaml")
    assert sorted(raised.value.mistakes) == [
        "flashes is 'x'; expected a whole number",
        "flashs is not a setting; did you mean flashes?",
        "lens.make is not a setting; did you mean lens.maker?",
        "lense is not a setting; did you mean lens?",
        "names is required (option --names)",
        "output_uri is required (option --output-uri)",
    ]
    assert str(raised.value) == f"shoot.yaml: {'; '.join(raised.value.mistakes)}"


def test_mistakes_are_named_as_the_user_writes_them():
    message = r"^x: --output-uri is required; --lens\.focal-length is 0; expected more than 0$"
    with pytest.raises(UsageError, match=message):
        build(Shoot, {"names": ["a"], "lens": {"focal_length": 0}}, where="x", spelt=option_name)


def test_a_config_cannot_be_changed_but_replaced():
    config = build(Shoot, VALUES, where="test")
    with pytest.raises(ValueError, match="frozen"):
        config.flashes = 3
    other = config.replaced(flashes=3, lens={"focal_length": 50})
    assert (other.flashes, other.lens.focal_length, other.names) == (3, 50, ("a",))
    assert config.flashes == 0
    with pytest.raises(ValueError, match="flashes"):
        config.replaced(flashes="many")


def test_work_is_what_determines_the_result():
    config = build(Shoot, VALUES, where="test")
    changed = config.replaced(output_uri="elsewhere", overwrite=True, flashes=9)
    assert config.result_fields() == changed.result_fields()
    assert config.result_fields()["names"] == ["a"]  # as JSON has it
    assert config.replaced(names=("b",)).result_fields() != config.result_fields()


# -- YAML ------------------------------------------------------------------------------------------


def test_yaml_reads_as_its_keys(tmp_path):
    (tmp_path / "a.yaml").write_text("names: [a]  # note\nlens:\n  maker: ü\n", encoding="utf-8")
    values = read_yaml(str(tmp_path / "a.yaml"))
    assert values == {"names": ["a"], "lens": {"maker": "ü"}}


@pytest.mark.parametrize("number", ["1e-5", "1E-5", "1.e-5", ".1e-4", "0.00001", "+1.0e-5"])
def test_yaml_number_may_be_written_as_in_json(tmp_path, number):
    (tmp_path / "a.yaml").write_text(f"range: [{number}, -{number.lstrip('+')}]\nname: 1e-5x\n")
    assert read_yaml(str(tmp_path / "a.yaml")) == {"range": [1e-5, -1e-5], "name": "1e-5x"}


def test_written_yaml_is_read_as_what_it_was(tmp_path):
    values = {"b": ["1e5", "12e4", "1.5", "ü", None], "a": {"x": 1e-5, "1e3": True}, "c": 1e300}
    (tmp_path / "a.yaml").write_text(to_yaml(values), encoding="utf-8")
    again = read_yaml(str(tmp_path / "a.yaml"))
    assert again == values
    assert list(again) == list(values)


@pytest.mark.parametrize("content", ["", "# nothing but a note\n", "---\n"])
def test_yaml_without_keys_is_no_values(tmp_path, content):
    (tmp_path / "a.yaml").write_text(content)
    assert read_yaml(str(tmp_path / "a.yaml")) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "not YAML: .*line 1"),
        (b"a: b: c", "not YAML: mapping values are not allowed here.*line 1"),
        (b"a:\n\t- b", "not YAML: .*line 2"),
        (b"\xff\xfe\x00", "not YAML: "),
        (b"a: 1\n--- \nb: 2", "not YAML: "),
        (b"a: !!python/name:os.system", "not YAML: "),
        (b"- a\n- b", "expected `key: value` lines, found a list"),
        (b"just words", "expected `key: value` lines, found a str"),
    ],
)
def test_what_is_no_yaml_is_an_error_in_one_line(tmp_path, content, message):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as raised:
        read_yaml(str(tmp_path / "a.yaml"))
    assert str(raised.value).startswith(str(tmp_path / "a.yaml"))
    assert "\n" not in str(raised.value)


def test_a_yaml_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        read_yaml(str(tmp_path / "a.yaml"))
    with pytest.raises(ConfigError, match=f"{tmp_path}: is a folder; give a YAML file"):
        read_yaml(str(tmp_path))


@pytest.mark.s3
def test_yaml_is_read_from_an_object_store(s3_bucket_uri):
    from ctc_ray.files import storage

    storage.write_bytes(s3_bucket_uri + "/a.yaml", b"flashes: 2")
    assert read_yaml(s3_bucket_uri + "/a.yaml") == {"flashes": 2}
    with pytest.raises(ConfigError, match="no such configuration file"):
        read_yaml(s3_bucket_uri + "/b.yaml")


# -- merging ---------------------------------------------------------------------------------------


def test_changes_are_laid_over_the_base_key_by_key():
    base = {"a": 1, "lens": {"maker": "x", "focal_length": 35}, "names": ["a", "b"]}
    changes = {"lens": {"focal_length": 50}, "names": ["c"], "b": {"c": 2}}
    assert merge(base, changes) == {
        "a": 1,
        "lens": {"maker": "x", "focal_length": 50},
        "names": ["c"],
        "b": {"c": 2},
    }
    assert base["lens"] == {"maker": "x", "focal_length": 35}


def test_what_is_no_mapping_is_replaced_as_a_whole():
    assert merge({"a": {"b": 1}}, {"a": None}) == {"a": None}
    assert merge({"a": 1}, {"a": {"b": 1}}) == {"a": {"b": 1}}


mappings = st.recursive(
    st.integers(0, 3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
trees = st.dictionaries(st.sampled_from("abc"), mappings, max_size=3)


@given(trees)
def test_merging_nothing_or_the_same_changes_nothing(tree):
    assert merge(tree, {}) == merge({}, tree) == merge(tree, tree) == tree


@given(trees, trees)
def test_merging_the_same_changes_twice_is_merging_them_once(base, changes):
    once = merge(base, changes)
    assert merge(once, changes) == once


def test_numbers_may_be_given_twice_but_names_may_not() -> None:
    class Point(Config):
        place: tuple[float, ...] = ()
        names: tuple[str, ...] = ()

    assert Point(place=(0.5, 0.5)).place == (0.5, 0.5)
    with pytest.raises(ValueError, match="twice"):
        Point(names=("a", "a"))
