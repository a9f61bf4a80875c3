"""The front door: one command per stage, in the order of the data.

cyclopts builds the options from the configuration models, so an option is declared once. What the
user typed is laid over the YAML file, and pydantic validates the whole, wherever it came from.
"""

import importlib
import json as json_module
import sys
import types
from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from typing import Annotated, Any, NoReturn, Optional, Union, get_args, get_origin

from cyclopts import App, CycloptsError, Group, Parameter
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ctc_ray import __version__
from ctc_ray.config.base import (
    Config,
    DottedNames,
    StageConfig,
    build,
    describe,
    merge,
    option_name,
    read_yaml,
    submodel,
)
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.config.demo import DemoConfig
from ctc_ray.config.inventory import (
    CamtrapDpInventoryConfig,
    CocoInventoryConfig,
    CsvInventoryConfig,
    DirInventoryConfig,
    ImagesInventoryConfig,
    JsonInventoryConfig,
    MegadetectorInventoryConfig,
)
from ctc_ray.config.prediction import ExportConfig, PredictConfig
from ctc_ray.config.show import ShowConfig
from ctc_ray.config.training import TrainConfig, TuneConfig
from ctc_ray.console import interrupts, logs
from ctc_ray.errors import CtcError
from ctc_ray.files import storage_errors

_EXIT_ERROR, _EXIT_USAGE, _EXIT_INTERRUPTED = 1, 2, 130

# stages that are a folder of ctc_ray.stages; the others are one module
_FOLDERS = {"create_inventory", "create_dataset", "train", "predict", "show"}

# command, stage, configuration
_STAGES: tuple[tuple[str, str, type[StageConfig]], ...] = (
    ("create-dataset", "create_dataset", CreateDatasetConfig),
    ("train", "train", TrainConfig),
    ("tune", "tune", TuneConfig),
    ("predict", "predict", PredictConfig),
    ("export", "export", ExportConfig),
    ("demo", "demo", DemoConfig),
)
_SOURCES: tuple[tuple[str, type[StageConfig]], ...] = (
    ("csv", CsvInventoryConfig),
    ("dir", DirInventoryConfig),
    ("images", ImagesInventoryConfig),
    ("json", JsonInventoryConfig),
    ("coco", CocoInventoryConfig),
    ("camtrap-dp", CamtrapDpInventoryConfig),
    ("megadetector", MegadetectorInventoryConfig),
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run `ctc` and leave the process.

    0 done, 1 a CtcError (one line on stderr), 2 wrong usage, 130 interrupted (143 by SIGTERM).
    """
    tokens = list(sys.argv[1:] if argv is None else argv)
    code = _EXIT_ERROR  # of an exception that no line describes
    telling = Lock()

    def tell_interrupted() -> None:
        if telling.acquire(blocking=False):  # once
            _tell("interrupted; the same command resumes")

    with interrupts.leaving_in_time(tell_interrupted):
        try:
            message, code = _outcome(tokens)
            if code == _EXIT_INTERRUPTED or (code and interrupts.received()):
                code = interrupts.exit_code(interrupts.received())
                tell_interrupted()
            elif message:
                _tell(message)
        finally:
            logs.end_noise(failed=code in (_EXIT_ERROR, _EXIT_USAGE))
    raise SystemExit(code)


def _outcome(tokens: list[str]) -> tuple[str, int]:
    """What to tell the user at the end, and the exit code."""
    try:
        make_app()(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return f"{_one_line(error)} (see `{_help_command(tokens)}`)", _EXIT_USAGE
    except CtcError as error:
        return str(error), _EXIT_ERROR
    except OSError as error:  # no permission, no space, no such bucket
        return storage_errors.error_text(error), _EXIT_ERROR
    except KeyboardInterrupt:
        return "", _EXIT_INTERRUPTED
    except SystemExit:
        if not interrupts.received():
            raise
        return "", _EXIT_INTERRUPTED  # a library's way to answer a signal
    return "", 0


def _tell(message: str) -> None:
    sys.stderr.write(f"ctc: {storage_errors.printable(message)}\n")
    sys.stderr.flush()


def _one_line(error: CycloptsError) -> str:
    if isinstance(error.__cause__, ValidationError):  # its own text is for programmers
        return describe(StageConfig, error.__cause__)
    return " ".join(str(error).split())


def _help_command(tokens: Sequence[str]) -> str:
    words = []
    for token in tokens:
        if token.startswith("-"):
            break
        words.append(token)
    return " ".join(["ctc", *words[:2], "--help"])


@cache
def make_app() -> App:
    """The command line."""
    app = App(
        name="ctc",
        help="Camera-trap image classification on Ray: photographs in, answers per event out.",
        version=__version__,
        default_parameter=Parameter(negative_iterable=(), consume_multiple=True),
        help_on_error=False,
        help_format="plaintext",
    )
    app["--help"].group = app["--version"].group = Group("Other", sort_key=9)
    about = "List the images of a source, one row per image."
    inventory = App(name="create-inventory", help=about, sort_key=0)
    for source, model in _SOURCES:
        inventory.command(_command("create_inventory", model), name=source)
    app.command(inventory)
    for place, (name, stage, model) in enumerate(_STAGES, start=1):
        app.command(_command(stage, model), name=name, sort_key=place)
    app.command(_show_command(), name="show", sort_key=len(_STAGES) + 1)
    return app


def _command(stage: str, model: type[StageConfig]) -> Callable[..., None]:
    typed = _as_typed(model)

    def command(
        *,
        # a type that is made at run time is no type to mypy
        options: Annotated[typed | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
        config: Annotated[str | None, Parameter(help=_CONFIG_HELP, group=_RUN)] = None,
        json: Annotated[bool, Parameter(help=_JSON_HELP, group=_RUN, negative="")] = False,
    ) -> None:
        given: dict[str, Any] = _given(options)
        values = merge(read_yaml(config) if config else {}, given)
        _run(
            stage,
            build(model, values, where=config or stage.partition(".")[0].replace("_", "-")),
            json,
        )

    command.__doc__ = (model.__doc__ or "").strip()
    return command


def _show_command() -> Callable[..., None]:
    """`ctc show URI`: the one command that writes no folder, so its URI comes without a name."""
    typed = _as_typed(ShowConfig, without="uri")
    uri_help = ShowConfig.model_fields["uri"].description

    def command(
        uri: Annotated[str, Parameter(help=uri_help)],
        /,
        *,
        # a type that is made at run time is no type to mypy
        options: Annotated[typed | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
        json: Annotated[bool, Parameter(help=_JSON_HELP, group=_RUN, negative="")] = False,
    ) -> None:
        _run("show", build(ShowConfig, {"uri": uri, **_given(options)}, where="show"), json)

    command.__doc__ = (ShowConfig.__doc__ or "").strip()
    return command


def _given(options: BaseModel | None) -> dict[str, Any]:
    """What the user typed, and nothing else."""
    return options.model_dump(exclude_unset=True) if options is not None else {}


_RUN = Group("How to run", sort_key=5)
_CONFIG_HELP = "YAML file with any of these options; what is given here wins over the file."
_JSON_HELP = "Print the result as one line of JSON."


def _run(stage: str, config: Config, as_json: bool) -> None:
    from ctc_ray.console import summaries  # numpy and rich, which --help does without

    out = logs.keep_noise_in_file(getattr(config, "output_uri", ""))
    logs.set_up()
    module = f"{stage}.stage" if stage in _FOLDERS else stage
    made = importlib.import_module(f"ctc_ray.stages.{module}").run(config)
    if isinstance(config, StageConfig):
        made = summaries.of_manifest(made, output_uri=config.output_uri)
    if as_json:
        out.write(json_module.dumps(made.values, ensure_ascii=False) + "\n")
    else:
        summaries.show(made, file=out)
    out.flush()


class _Typed(DottedNames):
    model_config = ConfigDict(extra="forbid")


@cache
def _as_typed(model: type[BaseModel], *, without: str = "", below: str = "") -> type[BaseModel]:
    """The model with every field optional: what a user may type, validated later as a whole."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name == without:
            continue
        key = f"{below}{name}"
        part = submodel(field.annotation)
        if part is not None:
            typed = _as_typed(part, below=f"{key}.")
            fields[name] = (Annotated[typed | None, Parameter(group=Group(name))], None)
        else:
            fields[name] = (_typed_annotation(key, field), None)
    return create_model(f"Typed{model.__name__}", __base__=_Typed, **fields)


def _typed_annotation(key: str, field: FieldInfo) -> Any:
    annotation = field.annotation
    description = field.description or ""
    if annotation == dict[str, float]:
        description += f" Given one by one, {option_name(key)}.NAME VALUE."
    if get_origin(annotation) in (Union, types.UnionType) and bool in get_args(annotation):
        annotation = str  # FILE | true | false: one word on the command line
    help_text = f"{' '.join(description.split())} {_default_text(field)}".strip()
    switch_off = option_name(f"no-{key.rpartition('.')[2]}") if field.default is True else ""
    negative = switch_off if annotation is bool else None
    shown = Parameter(help=help_text, show_default=False, negative=negative)
    return Annotated[Optional[annotation], shown]  # noqa: UP045  # a value, no type known to mypy


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "[required]"
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined or default in (None, (), {}, "", False):
        return ""
    if isinstance(default, dict):
        default = ", ".join(f"{key} {value}" for key, value in default.items())
    elif isinstance(default, tuple):
        default = " ".join(map(str, default))
    return f"[default: {str(default).lower() if isinstance(default, bool) else default}]"


if __name__ == "__main__":
    main()
