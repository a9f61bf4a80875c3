"""How `--help` looks: plain lines that fit the terminal, with names that are never broken."""

import re
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_INDENT, _COLUMN = 2, 28  # where names begin, and where their descriptions do
_MAX_WIDTH = 100  # longer lines are hard to read
_TAG = re.compile(r"\[.{1,30}\]$")  # [required], [default: 5]: on one line
_NO_BREAK = "\N{NO-BREAK SPACE}"


class HelpPage:
    """Formats the pages of cyclopts: a title, then each option with its description beside it.

    A name that is too long for its column has its description below it.
    """

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print one group of options or commands."""
        if not panel.entries:
            return
        about = _plain(panel.description)
        _print(console)
        _print(console, f"{panel.title}: {about}" if about else f"{panel.title}:", style="bold")
        for entry in panel.entries:
            _print_entry(console, _name(entry), _plain(entry.description))

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        """Print the line that says how the command is called."""
        text = _plain(usage)
        if text:
            words = text.removeprefix("Usage:").split()
            _print(console, _fill(_pairs(words), _width(console), "Usage: ", " " * 4))

    def render_description(self, console: "Console", options: "ConsoleOptions", text: Any) -> None:
        """Print what the command does."""
        for paragraph in _plain(text).split("\n\n"):
            if paragraph.strip():
                _print(console)
                _print(console, _fill(paragraph.split(), _width(console)))


def _print_entry(console: "Console", name: str, description: str) -> None:
    width = _width(console)
    lines = textwrap.wrap(
        _TAG.sub(lambda tag: tag[0].replace(" ", _NO_BREAK), description),
        width - _COLUMN,
        break_long_words=False,
        break_on_hyphens=False,
    )
    label = " " * _INDENT + name
    if len(label) > _COLUMN - 2:
        _print(console, label, style="cyan")
        label = ""
    for line in lines or [""]:
        gap = " " * (_COLUMN - len(label))
        _print(console, label, gap + line.replace(_NO_BREAK, " "), style="cyan")
        label = ""


def _name(entry: "HelpEntry") -> str:
    """E.g. `--resize.quality N`, `--augment.flip, --no-flip`, `--loss-weights.NAME NUMBER`."""
    names = [*entry.positive_names, *entry.positive_shorts, *entry.negative_names]
    value = entry.metavar or ""
    if entry.positional_label:
        return entry.positional_label
    return ", ".join(names) + (value if value.startswith(".") or not value else f" {value}")


def _plain(text: Any) -> str:
    """The characters of what cyclopts hands over, without styles."""
    inner = getattr(text, "primary_renderable", text)
    return str(getattr(inner, "plain", inner or "")).strip()


def _pairs(words: list[str]) -> list[str]:
    """Options together with their values, so that no line ends between the two."""
    pairs: list[str] = []
    for word in words:
        if pairs and pairs[-1].startswith("--") and not word.startswith(("-", "[")):
            pairs[-1] += f" {word}"
        else:
            pairs.append(word)
    return pairs


def _fill(words: list[str], width: int, first: str = "", later: str = "") -> str:
    lines, line = [], first
    for word in words:
        if line.strip() and line != first and len(line) + len(word) > width:
            lines.append(line.rstrip())
            line = later
        line += f"{word} "
    return "\n".join([*lines, line.rstrip()])


def _width(console: "Console") -> int:
    return min(console.width, _MAX_WIDTH)


def _print(console: "Console", label: str = "", rest: str = "", *, style: str = "") -> None:
    from rich.text import Text  # 50 ms, which errors do without

    console.print(Text.assemble((label, style), rest), soft_wrap=True, highlight=False)
