"""Keys of a configuration: which there are, and how they are written on the command line."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel


def submodel(annotation: Any) -> type[BaseModel] | None:
    """The configuration model that a field holds, also as `Model | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def option_name(key: str) -> str:
    """A dotted key as a command-line option."""
    return "--" + key.replace("_", "-")


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a model and of the models in it, in their order."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        below = submodel(field.annotation)
        if below:
            yield from known_keys(below, f"{prefix}{name}.")


def is_dict(annotation: Any) -> bool:
    """Whether a field holds a mapping, also as `dict | None`."""
    return any(get_origin(kind) is dict for kind in (annotation, *get_args(annotation)))
