"""What all stage configurations share: strict models, reading YAML, merging, naming mistakes."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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

from ctc_ray.config.mistakes import describe
from ctc_ray.errors import UsageError, holds_credentials


@dataclass(frozen=True)
class Shown:
    """How `--help` shows a setting, where its type and its default do not say it."""

    default: str = ""
    """What it means that the setting is not given."""
    value: str = ""
    """What stands for a value, e.g. FILE."""


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
    """A part of a stage's configuration. Frozen; an unknown key is an error.

    For `--help`: `example` is one command line, `option_groups` maps a title to the fields below
    it.
    """

    example: ClassVar[str] = ""
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _holds_no_credentials(cls, value: Any) -> Any:
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and holds_credentials(text) for text in texts):
            raise ValueError(
                "credentials in a URI end up in files and logs; give them in the environment: "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role of the machine"
            )
        return value

    @field_validator("*")
    @classmethod
    def _names_nothing_twice(cls, value: Any) -> Any:
        is_names = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        if is_names and len(set(value)) < len(value):
            raise ValueError("a name is given twice")
        return value


class StageConfig(Config):
    """The configuration of a stage.

    `operational` names the fields that change how the work is done and not its result. They may
    differ between a killed run and the run that resumes it.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"output_uri", "overwrite"})

    output_uri: str = Field(min_length=1)
    """Folder for the results: a local path, s3://… or gs://…."""
    overwrite: bool = False
    """Delete the results of an earlier run in the output folder and start again."""

    def result_fields(self) -> dict[str, Any]:
        """The fields that determine the result, as JSON values."""
        return self.model_dump(mode="json", exclude=set(self.operational))

    def replaced(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated."""
        return type(self).model_validate({**self.model_dump(), **changes})


ConfigT = TypeVar("ConfigT", bound=Config)


class _Loader(yaml.SafeLoader):
    """Reads 1e-5 as a number, as YAML 1.2 and JSON do; YAML 1.1 requires 1.0e-5."""


class _Dumper(yaml.SafeDumper):
    """Quotes the text 1e-5, so that it is read as text again."""


for _one in (_Loader, _Dumper):
    _one.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def read_yaml(uri: str) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        UsageError: the file does not exist, is not YAML, or its top level is not a mapping.
    """
    from ctc_ray.files import (
        storage,  # pyarrow takes 0.2 s to import; `ctc --help` needs none of it
    )

    try:
        value = yaml.load(storage.read_bytes(uri), _Loader)  # a SafeLoader
    except FileNotFoundError:
        raise UsageError(f"{uri}: no such configuration file") from None
    except IsADirectoryError:
        raise UsageError(f"{uri}: is a folder; give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{uri}: not YAML: {' '.join(str(error).split())}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{uri}: expected `key: value` lines, found a {type(value).__name__}")
    return value


def to_yaml(values: Mapping[str, Any]) -> str:
    """Text that `read_yaml` reads as these values, in their order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes applied, mappings key by key."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return merged


def build(
    model: type[ConfigT],
    values: Mapping[str, Any],
    *,
    where: str,
    spelt: Callable[[str], str] = str,
) -> ConfigT:
    """The configuration made of these values.

    Args:
        where: the file or the command that the values come from, for the error message.
        spelt: dotted key -> how the user writes it, for the error message.

    Raises:
        UsageError: names every wrong, unknown and missing key, its value, what is expected, and for
            an unknown key the nearest known one.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        mistakes = describe(model, error, spelt)
        raise UsageError(f"{where}: {'; '.join(mistakes)}", mistakes) from None
