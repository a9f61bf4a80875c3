"""The front door: one command per stage, in the order of the data.

cyclopts builds the options from the configuration models, so an option is declared once. Options
are laid over the YAML file, and pydantic validates the whole.
"""

import importlib
import json as json_module
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from threading import Lock
from typing import Annotated, Any, NoReturn, Optional

from cyclopts import App, CycloptsError, Group, Parameter
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ctc_ray import __version__
from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.config.base import Config, DottedNames, StageConfig, build, merge, read_yaml
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
from ctc_ray.config.keys import option_name
from ctc_ray.config.mistakes import describe
from ctc_ray.config.options import REQUIRED, Option, option_groups, usage
from ctc_ray.config.prediction import ExportConfig, PredictConfig
from ctc_ray.config.show import ShowConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.console import interrupts, logs
from ctc_ray.console.help_page import HelpPage
from ctc_ray.errors import CtcError, UsageError
from ctc_ray.files import storage_errors

_NEEDS_VALUE = re.compile(r'Command ".*" parameter (\S+) requires an argument')
_DOT = "__"  # of a key, in the name of a field
_EXIT_ERROR, _EXIT_USAGE, _EXIT_INTERRUPTED = 1, 2, 130

# stages that are a folder of ctc_ray.stages; the others are one module
_FOLDERS = {"create_inventory", "create_dataset", "train", "tune", "predict", "aggregate", "show"}

# command, stage, configuration
_STAGES: tuple[tuple[str, str, type[StageConfig]], ...] = (
    ("create-dataset", "create_dataset", CreateDatasetConfig),
    ("train", "train", TrainConfig),
    ("tune", "tune", TuneConfig),
    ("predict", "predict", PredictConfig),
    ("aggregate", "aggregate", AggregateConfig),
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

_ABOUT = """\
Camera-trap image classification: from photographs to one answer per capture event.

Each command reads the folder that an earlier one wrote. Running a command again is safe: finished
work is not repeated, and a stopped command resumes. Large work runs on the Ray cluster that this
machine belongs to, or that RAY_ADDRESS names, else on this machine alone. `ctc COMMAND --help`
lists all options."""
_CONFIG_HELP = "YAML file with any of these settings. Options override the file. [default: none]"
_JSON_HELP = "Print the result as one line of JSON. [default: false]"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run `ctc` and leave the process.

    0 done, 1 an error, 2 wrong usage, 130 interrupted (143 by SIGTERM).
    """
    tokens = list(sys.argv[1:] if argv is None else argv)
    code = _EXIT_ERROR  # of an exception that no line describes
    telling = Lock()

    def tell_interrupted() -> None:
        if telling.acquire(blocking=False):  # once
            _tell("interrupted; the same command resumes")

    with interrupts.leaving_in_time(tell_interrupted):
        try:
            lines, code = _outcome(tokens)
            if code == _EXIT_INTERRUPTED or (code and interrupts.received()):
                code = interrupts.exit_code(interrupts.received())
                tell_interrupted()
            elif lines:
                _tell(*lines)
        finally:
            logs.end_noise(failed=code in (_EXIT_ERROR, _EXIT_USAGE))
    raise SystemExit(code)


def _outcome(tokens: list[str]) -> tuple[list[str], int]:
    """What to tell the user at the end, and the exit code."""
    try:
        make_app()(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, UsageError) as error:
        return _usage_lines(error, tokens), _EXIT_USAGE
    except CtcError as error:
        return [str(error)], _EXIT_ERROR
    except OSError as error:  # no permission, no space, no such bucket
        return [storage_errors.error_text(error)], _EXIT_ERROR
    except KeyboardInterrupt:
        return [], _EXIT_INTERRUPTED
    except SystemExit:
        if not interrupts.received():
            raise
        return [], _EXIT_INTERRUPTED  # a library's way to answer a signal
    return [], 0


def _tell(*lines: str) -> None:
    sys.stderr.write("ctc: " + "\n  ".join(map(storage_errors.printable, lines)) + "\n")
    sys.stderr.flush()


def _in_words(error: CycloptsError | UsageError) -> UsageError:
    if isinstance(error, UsageError):
        return error
    cause = error.__cause__
    if isinstance(cause, ValidationError):  # its own text is for programmers
        typed = next(m for m in _Typed.__subclasses__() if m.__name__ in cause.title)
        mistakes = describe(typed, cause, lambda field: option_name(field.replace(_DOT, ".")))
        return UsageError("; ".join(mistakes), mistakes)
    text = " ".join(str(error).split()).rstrip(".")
    return UsageError(_NEEDS_VALUE.sub(r"\1 needs a value", text))


def _usage_lines(error: CycloptsError | UsageError, tokens: Sequence[str]) -> list[str]:
    """One mistake on one line, several on a line each."""
    error = _in_words(error)
    hint = f"(see `{_help_command(tokens)}`)"
    if len(error.mistakes) < 2:
        return [f"{error} {hint}"]
    where = str(error).removesuffix("; ".join(error.mistakes))
    return [f"{where}{len(error.mistakes)} mistakes {hint}", *error.mistakes]


def _help_command(tokens: Sequence[str]) -> str:
    app, words = make_app(), ["ctc"]
    for token in tokens:
        if token.startswith("-") or token not in app:
            break
        app = app[token]
        words.append(token)
    return " ".join([*words, "--help"])


@cache
def make_app() -> App:
    """The command line."""
    app = App(
        name="ctc",
        help=_ABOUT,
        usage="ctc COMMAND [options]",
        help_epilogue=_example("ctc demo"),
        version=__version__,
        default_parameter=Parameter(negative_iterable=(), consume_multiple=True),
        help_on_error=False,
        help_format="plaintext",
        help_formatter=HelpPage(),
    )
    other = Group("Other", sort_key=9)
    app["--help"].group = app["--version"].group = other
    app["--help"].help = "Show this page."
    app["--version"].help = "Show the version."
    about = "Complete commands and options with the Tab key (bash, zsh, fish)."
    app.register_install_completion_command(group=other, help=about)
    inventory = App(
        name="create-inventory",
        help="List the images of a source with their events and labels, one row per image.",
        usage="ctc create-inventory SOURCE [options]",
        help_epilogue=_example(CsvInventoryConfig.example),
        sort_key=0,
    )
    inventory["--help"].group = inventory["--version"].group = Group("", show=False)
    for index, (source, model) in enumerate(_SOURCES):
        name = f"create-inventory {source}"
        _add(inventory, _command(name, "create_inventory", model), name, model, sort_key=index)
    app.command(inventory)
    for index, (name, stage, model) in enumerate(_STAGES, start=1):
        _add(app, _command(name, stage, model), name, model, sort_key=index)
    _add(app, _show_command(), "show", ShowConfig, sort_key=len(_STAGES) + 1)
    return app


def _add(
    app: App, command: Callable[..., None], name: str, model: type[Config], *, sort_key: int
) -> None:
    is_show = model is ShowConfig
    app.command(
        command,
        name=name.rpartition(" ")[2],
        usage="ctc show URI [options]" if is_show else usage(f"ctc {name}", model),
        help=(model.__doc__ or "").strip(),
        help_epilogue=_example(model.example),
        sort_key=sort_key,
    )


def _example(lines: str) -> str:
    return "Example:\n  " + lines.replace("\n", "\n  ")


def _command(name: str, stage: str, model: type[StageConfig]) -> Callable[..., None]:
    typed, run = _as_typed(model)

    def command(
        *,
        # a type that is made at run time is no type to mypy
        options: Annotated[typed | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
        config: Annotated[
            str | None, Parameter(help=_CONFIG_HELP, group=run, metavar="FILE", show_default=False)
        ] = None,
        json: Annotated[
            bool, Parameter(help=_JSON_HELP, group=run, negative="", show_default=False)
        ] = False,
    ) -> None:
        given: dict[str, Any] = _given(options)

        def spelt(key: str) -> str:
            return option_name(key) if config is None or _holds(given, key) else key

        values = merge(read_yaml(config) if config else {}, given)
        _run(stage, build(model, values, where=config or name, spelt=spelt), json)

    return command


def _show_command() -> Callable[..., None]:
    """`ctc show URI`: the one command that writes no folder, so its URI comes without a name."""
    typed, run = _as_typed(ShowConfig, without="uri")
    uri_help = f"{ShowConfig.model_fields['uri'].description} [required]"

    def command(
        uri: Annotated[str, Parameter(help=uri_help, group=Group(REQUIRED, sort_key=-1))],
        /,
        *,
        # a type that is made at run time is no type to mypy
        options: Annotated[typed | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
        json: Annotated[
            bool, Parameter(help=_JSON_HELP, group=run, negative="", show_default=False)
        ] = False,
    ) -> None:
        values = {"uri": uri, **_given(options)}
        _run("show", build(ShowConfig, values, where="show", spelt=option_name), json)

    return command


def _given(options: BaseModel | None) -> dict[str, Any]:
    """What the user typed, and nothing else."""
    values: dict[str, Any] = {}
    for name, value in (options.model_dump(exclude_unset=True) if options else {}).items():
        part, _, last = name.rpartition(_DOT)
        values = merge(values, {part: {last: value}} if part else {last: value})
    return values


def _holds(values: Mapping[str, Any], key: str) -> bool:
    """Whether a dotted key is among values in mappings in mappings."""
    first, _, rest = key.partition(".")
    if first not in values or not rest:
        return first in values
    below = values[first]
    return not isinstance(below, Mapping) or rest in below or _holds(below, rest)


def _run(stage: str, config: Config, as_json: bool) -> None:
    from ctc_ray.console import summaries  # numpy and rich, which --help does without
    from ctc_ray.runs import machine  # Arrow, likewise

    out = logs.keep_noise_in_file(getattr(config, "output_uri", ""))
    logs.set_up()
    machine.limit_arrow_threads()
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


def _as_typed(model: type[Config], *, without: str = "") -> tuple[type[BaseModel], Group]:
    """The options as one model with every field optional; validated later as a whole.

    The model is flat, because cyclopts reads the source of every model for each page of help.

    Returns:
        The model, and the last group of its options.
    """
    fields: dict[str, Any] = {}
    for index, about in enumerate(option_groups(model, without=without)):
        group = Group(about.title, help=about.about, sort_key=index)
        for option in about.options:
            fields[option.key.replace(".", _DOT)] = (_typed(option, group), None)
    return create_model(f"Typed{model.__name__}", __base__=_Typed, **fields), group


def _typed(option: Option, group: Group) -> Any:
    shown = Parameter(
        name=option_name(option.key),
        help=option.text,
        group=group,
        metavar=option.value or None,
        negative=(option.switch_off or "") if option.kind is bool else None,
        show_default=False,
        show_choices=False,
    )
    return Annotated[Optional[option.kind], shown]  # noqa: UP045  # a value, no type known to mypy


if __name__ == "__main__":
    main()
