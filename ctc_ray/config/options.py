"""The command-line options of a configuration, and what `--help` says about each of them."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ctc_ray.config.base import Config, Shown, StageConfig
from ctc_ray.config.keys import is_dict, option_name, submodel

REQUIRED, MAIN, HOW_TO_RUN = "Required", "Options", "How to run"


@dataclass(frozen=True)
class Option:
    """One option, e.g. `--resize.quality N`."""

    key: str
    kind: Any
    """Type of the values; text where a word may also stand for a switch."""
    value: str
    """What stands for a value; empty for a switch; .NAME NUMBER for values given one by one."""
    text: str
    """Description and default."""
    switch_off: str
    """The option that switches it off, where it is on by default."""


@dataclass(frozen=True)
class OptionGroup:
    """Options below one title."""

    title: str
    about: str
    options: tuple[Option, ...]


def option_groups(model: type[Config], *, without: str = "") -> list[OptionGroup]:
    """All options of a configuration: the required ones first, how to run last.

    Args:
        without: a field that is no option.
    """
    titles = {field: title for title, names in model.option_groups.items() for field in names}
    operational = model.operational if issubclass(model, StageConfig) else frozenset()
    groups: dict[str, list[Option]] = {
        REQUIRED: [],
        **{title: [] for title in model.option_groups},
        **({} if MAIN in model.option_groups else {MAIN: []}),
    }
    about, run = {}, list[Option]()
    for name, field in _inputs_first(model):
        part = submodel(field.annotation)
        if name == without:
            continue
        if part is not None:
            title = name.capitalize()
            about[title] = field.description or ""
            groups[title] = [_option(f"{name}.{n}", f) for n, f in part.model_fields.items()]
        elif field.is_required():
            groups[REQUIRED].append(_option(name, field))
        elif name in operational and name not in titles:
            run.append(_option(name, field))
        else:
            groups[titles.get(name, MAIN)].append(_option(name, field))
    groups[HOW_TO_RUN] = run
    return [
        OptionGroup(title, about.get(title, ""), tuple(options))
        for title, options in groups.items()
        if options or title == HOW_TO_RUN
    ]


def usage(command: str, model: type[Config], *, without: str = "") -> str:
    """The command with its required options, e.g. `ctc export --bundle-uri URI [options]`."""
    first = option_groups(model, without=without)[0]
    needed = first.options if first.title == REQUIRED else ()
    if any(is_dict(option.kind) for option in needed):  # too much for a command line
        return f"{command} --config FILE [options]"
    words = [f"{option_name(option.key)} {option.value}" for option in needed]
    return " ".join([command, *words, "[options]"])


def _inputs_first(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    fields = dict(model.model_fields)
    output = fields.pop("output_uri", None)
    yield from fields.items()
    if output is not None:
        yield "output_uri", output


def _option(key: str, field: FieldInfo) -> Option:
    kind = field.annotation
    if get_origin(kind) in (Union, types.UnionType) and bool in get_args(kind):
        kind = str  # FILE | true | false: one word on the command line
    name = key.rpartition(".")[2]
    value = _shown(field).value
    if value and _is_list(kind):
        value += "..."
    return Option(
        key=key,
        kind=kind,
        value=value or _value(name, kind),
        text=f"{' '.join((field.description or '').split())} [{_default(field)}]",
        switch_off=option_name(f"no-{name}") if field.default is True and kind is bool else "",
    )


def _shown(field: FieldInfo) -> Shown:
    return next((item for item in field.metadata if isinstance(item, Shown)), Shown())


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _value(name: str, kind: Any) -> str:
    """What stands for a value of this type."""
    if is_dict(kind):
        return ".NAME NUMBER" if get_args(kind)[1] is float else ".KEY VALUE"
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if _is_list(kind):
        return f"{_value(name.removesuffix('s'), get_args(kind)[0])}..."
    if get_args(kind):  # a union, or an annotated type
        parts = (_value(name, part) for part in get_args(kind) if part is not type(None))
        return "|".join(part for part in parts if part)
    if kind is str:
        last = name.rpartition("_")[2].upper()
        return last if last in ("URI", "COLUMN", "HEAD", "SPLIT") else "TEXT"
    return {int: "N", float: "NUMBER"}.get(kind, "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    shown = _shown(field).default
    return f"default: {shown or _as_text(field.get_default(call_default_factory=True))}"


def _as_text(value: Any) -> str:
    match value:
        case None | ():
            text = "none"
        case "":
            text = "empty"
        case bool():
            text = str(value).lower()
        case float():
            text = f"{value:g}"
        case dict():
            text = ", ".join(f"{name} {_as_text(item)}" for name, item in value.items())
        case tuple():
            text = " ".join(map(_as_text, value))
        case _:
            text = str(value)
    return text
