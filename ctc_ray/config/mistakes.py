"""What is wrong with the values of a configuration, in the words of the person who wrote them."""

import difflib
from collections.abc import Callable, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ctc_ray.config.keys import is_dict, known_keys, option_name, submodel
from ctc_ray.errors import masked


def describe(
    model: type[BaseModel], error: ValidationError, spelt: Callable[[str], str]
) -> tuple[str, ...]:
    """Every mistake in the values of the model, in words.

    Args:
        spelt: dotted key -> how the user writes it: as a key of a file, or as an option.
    """
    found: dict[str, list[str]] = {}
    for details in error.errors():
        key = _key(model, details["loc"])
        problem, expected = _describe(model, key, spelt, details)
        found.setdefault(problem, []).append(expected)
    return tuple(
        problem + " or ".join(dict.fromkeys(expected)) for problem, expected in found.items()
    )


def _key(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """The dotted key of a mistake, without the parts that only pydantic knows."""
    keys: list[str] = []
    below: type[BaseModel] | None = model
    for part in loc:
        if keys and isinstance(part, int):  # an item of a list
            break
        keys.append(str(part))
        field = below.model_fields.get(str(part)) if below else None
        if field is not None and not submodel(field.annotation) and not is_dict(field.annotation):
            break
        below = submodel(field.annotation) if field is not None else None
    return ".".join(keys)


def _describe(
    model: type[BaseModel], key: str, spelt: Callable[[str], str], details: ErrorDetails
) -> tuple[str, str]:
    """What is wrong, and how the sentence ends: what was expected."""
    name = spelt(key)
    match details["type"]:
        case "missing":
            return f"{name} is required", (f" (option {option_name(key)})" if name == key else "")
        case "extra_forbidden":
            return f"{name} is not a setting; ", _nearest(model, key, spelt)
        case "value_error" if isinstance(details["input"], Mapping):  # of several keys together
            return details["msg"].removeprefix("Value error, "), ""
        case "dict_type" | "model_type":
            problem = f"{name} is {details['input']!r}; "
            return problem, f"its values are given one by one, as {name}.NAME"
        case _:
            return _wrong_value(name, details)


def _wrong_value(name: str, details: ErrorDetails) -> tuple[str, str]:
    value = masked(repr(details["input"])) if details["input"] not in ((), []) else "empty"
    expected = _EXPECTED.get(details["type"])
    if expected is None:
        message = details["msg"].removeprefix("Value error, ")
        return f"{name} is {value}: ", message
    return f"{name} is {value}; expected ", expected.format(**details.get("ctx", {}))


_EXPECTED = {  # pydantic's name of a mistake -> what was expected
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_too_short": "some text",
    "tuple_type": "a list",
    "too_short": "at least one value",
    "literal_error": "{expected}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
}


def _nearest(model: type[BaseModel], key: str, spelt: Callable[[str], str]) -> str:
    """The known key that an unknown one is most like, or the keys there are at its level."""
    path, _, last = key.rpartition(".")
    level = [known for known in known_keys(model) if known.rpartition(".")[0] == path]
    names = {known.rpartition(".")[2]: known for known in level}
    elsewhere = {known.rpartition(".")[2]: known for known in reversed([*known_keys(model)])}
    for known in (names, elsewhere):
        near = difflib.get_close_matches(last, list(known), n=1)
        if near:
            return f"did you mean {spelt(known[near[0]])}?"
    return f"settings are {', '.join(map(spelt, level))}"
