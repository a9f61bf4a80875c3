import re

import pytest
from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console

from ctc_ray.console.help_page import HelpPage


def printed(*entries: HelpEntry, width: int = 80) -> list[str]:
    console = Console(width=width)
    panel = HelpPanel(title="Split", format="parameter", description="How to.", entries=[*entries])
    with console.capture() as capture:
        HelpPage()(console, console.options, panel)
    return capture.get().splitlines()


def option(name: str, value: str, text: str) -> HelpEntry:
    return HelpEntry(positive_names=(name,), metavar=value, description=text)


def test_a_short_name_has_its_description_beside_it_and_a_long_one_below() -> None:
    long = "--balance.max-events-per-class"
    lines = printed(option("--salt", "TEXT", "Seed."), option(long, "N|rarest", "Most."))
    assert lines == [
        "",
        "Split: How to.",
        "  --salt TEXT               Seed.",
        f"  {long} N|rarest",
        "                            Most.",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_is_cut_and_no_name_or_default_is_broken(width: int) -> None:
    text = "word " * 40 + "cross-validation [default: no renaming]"
    lines = printed(option("--loss-weights", ".NAME NUMBER", text), width=width)
    assert all(len(line) <= min(width, 100) for line in lines)
    assert " ".join(" ".join(lines).split()) == f"Split: How to. --loss-weights.NAME NUMBER {text}"
    assert re.fullmatch(r".*\[default: no renaming\]", lines[-1])


def test_a_group_without_options_is_not_shown() -> None:
    assert printed() == []


def test_usage_keeps_options_and_values_together() -> None:
    console = Console(width=40)
    with console.capture() as capture:
        HelpPage().render_usage(
            console, console.options, "ctc train --dataset-uri URI --heads HEAD... [options]"
        )
    assert capture.get().splitlines() == [
        "Usage: ctc train --dataset-uri URI",
        "    --heads HEAD... [options]",
    ]
