"""What all stage configurations share: strict models, reading YAML, merging, errors in one line."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from ctc_ray.errors import ConfigError


class DottedNames(BaseModel):
    """A model whose fields of names and numbers also take names with a dot in them.

    `--loss-weights.a.b 2`, and `loss_weights.a.b` of a search space, come as {"a": {"b": 2}}.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _join_names(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        is_numbers = any(
            get_origin(kind) is dict and get_args(kind)[1] is float
            for kind in (annotation, *get_args(annotation))
        )
        return dict(_flat(value)) if is_numbers and isinstance(value, Mapping) else value


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


class Config(DottedNames):
    """A part of a stage's configuration. Frozen; an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _names_nothing_twice(cls, value: Any) -> Any:
        is_names = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        if is_names and len(set(value)) < len(value):
            raise ValueError("a name is given twice")
        return value


class StageConfig(Config):
    """The configuration of a stage.

    `operational` names the fields that change how the work is done and not what comes out; they may
    differ between a killed run and the run that continues it.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"output_uri", "overwrite"})

    output_uri: str = Field(min_length=1)
    """Folder for the results: a local path, or s3://bucket/prefix."""
    overwrite: bool = False
    """Delete what an earlier run left in the output folder, and begin anew."""

    def result_fields(self) -> dict[str, Any]:
        """The fields that determine the result, as JSON values."""
        return self.model_dump(mode="json", exclude=set(self.operational))

    def replaced(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated."""
        return type(self).model_validate({**self.model_dump(), **changes})


ConfigT = TypeVar("ConfigT", bound=Config)


class _Loader(yaml.SafeLoader):
    """With 1e-5 a number, as in YAML 1.2 and JSON: in YAML 1.1 it would have to be 1.0e-5."""


class _Dumper(yaml.SafeDumper):
    """Puts the text 1e-5 into quotes, so that it is read as text again."""


for _one in (_Loader, _Dumper):
    _one.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def read_yaml(uri: str) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        ConfigError: there is no such file, it is not YAML, or its top level is no mapping.
    """
    from ctc_ray.files import (
        storage,  # pyarrow takes 0.2 s to import; `ctc --help` needs none of it
    )

    try:
        value = yaml.load(storage.read_bytes(uri), _Loader)  # a SafeLoader
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ConfigError(f"{uri}: not YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{uri}: expected `key: value` lines, found a {type(value).__name__}")
    return value


def to_yaml(values: Mapping[str, Any]) -> str:
    """Text that `read_yaml` reads as these values, in their order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes laid over it, mappings key by key."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return merged


def build(model: type[ConfigT], values: Mapping[str, Any], *, where: str) -> ConfigT:
    """The configuration made of these values.

    Args:
        where: what the values come from, for the error message.

    Raises:
        ConfigError: names the first wrong key, its value, what is allowed, and for an unknown key
            the nearest known one.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe(model, error)}") from None


def describe(model: type[BaseModel], error: ValidationError) -> str:
    """What is wrong with the first three wrong values of the model, in words."""
    return "; ".join(_describe(model, details) for details in error.errors()[:3])


def _describe(model: type[BaseModel], details: ErrorDetails) -> str:
    keys = [str(key) for key in details["loc"]]
    name = ".".join(keys)
    if details["type"] == "missing":
        return f"{name} is required (option {option_name(name)})"
    if details["type"] == "extra_forbidden":
        known = list(_known_keys(model, keys[:-1]))
        near = difflib.get_close_matches(keys[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"keys are {', '.join(known)}"
        return f"{name} is not a setting; {hint}"
    message = details["msg"].removeprefix("Value error, ")
    if not name:
        return message
    if details["type"] in ("dict_type", "model_type"):
        message = f"its values are given one by one, as {name}.NAME"
    return f"{name} is {details['input']!r}: {message}"


def _known_keys(model: type[BaseModel], path: list[str]) -> Iterator[str]:
    for key in path:
        field = model.model_fields.get(key)
        below = field and submodel(field.annotation)
        if not below:
            return
        model = below
    yield from model.model_fields


def submodel(annotation: Any) -> type[BaseModel] | None:
    """The configuration model that a field holds, also as `Model | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def option_name(key: str) -> str:
    """A dotted key as a command-line option."""
    return "--" + key.replace("_", "-")
