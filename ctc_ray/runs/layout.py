"""Names inside an output folder."""

import re

WORK_FOLDER = "_work"

_DIGITS = 5
_PART = re.compile(r"part-[a-z]?([0-9]{5,})")


def part_stem(number: int) -> str:
    """The name of a numbered file, without its ending: part-00042.

    Names sort as the numbers do, so that programs which sort names read the files in order. Beyond
    99,999 a letter says how many digits follow: part-a100000, part-b1000000.
    """
    digits = f"{number:0{_DIGITS}d}"
    longer = len(digits) - _DIGITS
    return f"part-{chr(ord('a') + longer - 1) if longer else ''}{digits}"


def number_of_part(stem: str) -> int | None:
    """The number in such a name; None: it is none."""
    match = _PART.fullmatch(stem)
    return None if match is None else int(match[1])
