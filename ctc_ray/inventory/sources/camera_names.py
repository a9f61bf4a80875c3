"""Names that cameras give: a counter in files, and numbered folders (DCF, JEITA CP-3461).

A camera counts from 0001 to 9999 and begins again; it opens a new folder when one is full, so the
images of one trigger may lie in 100EK113 and 101EK113.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_FOLDER = re.compile(r"(?P<number>[1-9]\d\d)(?P<letters>[A-Za-z0-9_]{5})")
_DIGITS = re.compile(r"(\d+)")
_COUNTER = re.compile(r"(?s)(\D*)(\d+)(.*)")
_COUNTER_DIGITS = 4  # of a counter that begins again after 9999
_ALL_DIGITS, _LOW, _HIGH = r"\d+", r"0\d{3}[^0-9/]*$", r"9\d{3}[^0-9/]*$"

Ints = npt.NDArray[np.int64]
SeriesKey = tuple[str | int, ...]


def numbered_folder(folder: str) -> tuple[str, str, int] | None:
    """Parent, letters and number of a folder that a camera made; None for any other folder."""
    parent, _, name = folder.replace("\\", "/").rpartition("/")
    match = _FOLDER.fullmatch(name)
    return None if match is None else (parent, match["letters"], int(match["number"]))


def first_numbered_folders(folders: Iterable[str]) -> dict[str, str]:
    """Folder -> the folder with the lowest number among those of the same camera.

    Folders of one parent with equal letters are of one camera: 101EK113 becomes 100EK113 if that is
    there. Other folders stay as they are.
    """
    first: dict[tuple[str, str], tuple[int, str]] = {}
    parts = {folder: numbered_folder(folder) for folder in folders}
    for folder, found in parts.items():
        if found is not None:
            camera, own = found[:2], (found[2], folder)
            first[camera] = min(first.get(camera, own), own)
    return {folder: folder if f is None else first[f[:2]][1] for folder, f in parts.items()}


def in_camera_order(paths: pa.Array, run_starts: Ints) -> Ints:
    """The index of each path when every run of paths is put in the order of the camera's counter.

    8 comes before 10, 100EK113 before 101EK113, and 9999 before 0001.

    Args:
        paths: sorted by their bytes within each run.
        run_starts: ascending; index of the first path of each run, the first of them 0.
    """
    order = np.arange(len(paths))
    ends = np.append(run_starts[1:], len(paths))
    for run in np.flatnonzero(_may_be_wrong(paths, run_starts)):
        start, end = int(run_starts[run]), int(ends[run])
        own = _order(paths.slice(start, end - start).to_pylist())
        order[start:end] = start + np.array(own)
    return order


def _may_be_wrong(paths: pa.Array, run_starts: Ints) -> npt.NDArray[np.bool_]:
    """The runs whose bytes may not be in the order of the counter.

    In most runs names are equally long and differ only in digits, and then they are.
    """
    lengths = pc.binary_length(paths).to_numpy(zero_copy_only=False)
    shapes = pc.replace_substring_regex(paths, _ALL_DIGITS, "0").dictionary_encode().indices
    shapes = shapes.to_numpy(zero_copy_only=False)
    differs = np.zeros(len(paths), bool)
    differs[1:] = (lengths[1:] != lengths[:-1]) | (shapes[1:] != shapes[:-1])
    differs[run_starts] = False
    is_odd = np.logical_or.reduceat(differs, run_starts) if len(run_starts) else np.zeros(0, bool)
    low, high = (np.asarray(pc.match_substring_regex(paths, pattern)) for pattern in (_LOW, _HIGH))
    if high.any() and low.any():
        is_odd |= np.logical_or.reduceat(low, run_starts) & np.logical_or.reduceat(high, run_starts)
    return np.asarray(is_odd)


def _order(paths: Sequence[str]) -> list[int]:
    keys = [_key(path) for path in paths]
    counters: dict[tuple[SeriesKey, int], list[int]] = {}
    for series, folder, counter, digits in keys:
        if digits == _COUNTER_DIGITS:
            counters.setdefault((series, folder), []).append(counter)
    whole = 10**_COUNTER_DIGITS
    begun_again = {
        one
        for one, own in counters.items()
        if min(own) < whole // 10 and max(own) >= whole * 9 // 10
    }

    def place(index: int) -> tuple[SeriesKey, int, int, str]:
        series, folder, counter, _ = keys[index]
        again = (series, folder) in begun_again and counter < whole // 2
        return series, folder, counter + whole * again, paths[index]

    return sorted(range(len(paths)), key=place)


def _key(path: str) -> tuple[SeriesKey, int, int, int]:
    """Parts of a path: what a series of names shares, the folder's number, the counter, its digits.

    The series is text and numbers in turn, so it can be compared with any other.
    """
    folder, _, name = path.replace("\\", "/").rpartition("/")
    found = numbered_folder(folder)
    number = 0
    if found is not None:
        folder, number = f"{found[0]}/{found[1]}", found[2]
    stem, dot, _ = name.rpartition(".")
    match = _COUNTER.fullmatch((stem if dot else name)[::-1])  # the last number, read from the end
    if match is None:
        return _natural(f"{folder}/{stem if dot else name}"), number, -1, 0
    end, digits, begin = (part[::-1] for part in match.groups())
    return _natural(f"{folder}/{begin}/{end}"), number, int(digits), len(digits)


def _natural(text: str) -> SeriesKey:
    return tuple(int(part) if k % 2 else part for k, part in enumerate(_DIGITS.split(text)))
