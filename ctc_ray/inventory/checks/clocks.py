"""Images whose time shows that the camera's clock was set back, ahead, or never set.

N images in the order of the source.
"""

import re
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts_of_codes
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.camera_names import numbered_folder

_SECOND_US = 1_000_000
_DAY_S = 86_400
_DAY_US = _DAY_S * _SECOND_US
_SET_US = int(np.datetime64("2000-01-02", "us").astype(np.int64))  # clocks start the day before
_DIGITS = re.compile(r"\d+")

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


def check_clocks(
    image_uris: pa.Array, captured_at: pa.Array | None, cameras_N: Numbers, *, now: datetime
) -> Findings:
    """Images whose time shows that the camera's clock was wrong.

    `future_times`: the time is more than a day after now, wherever on Earth the camera is.

    `clock_resets`: images whose time shows that the camera's clock was set back or never set.

    1. The time is before 2000-01-02: a clock that was never set starts on 2000-01-01 or earlier.
    2. The time is more than a day before the time of the previous image of a series. Only the first
       image after the jump is listed. A series is the images of one camera and one folder whose
       names differ only in digits, sorted by length and then by name, so that 9 comes before 10.
       Numbered folders that a camera makes (100EK113, 101EK113) count as one folder. Images of
       unknown cameras are not compared, because they may come from many cameras. Neither are web
       addresses, because a camera did not choose their names.

    Args:
        captured_at: timestamp[us]; null is unknown. None: no image has a time.
        cameras_N: camera index of each image; -1 is unknown.
        now: with a time zone.
    """
    if captured_at is None or captured_at.null_count == len(captured_at):
        return Findings()
    micros_N = captured_at.fill_null(0).cast(pa.int64()).to_numpy()
    is_dated_N = np.asarray(captured_at.is_valid())
    is_unset_N = is_dated_N & (micros_N < _SET_US)
    is_address_N = np.asarray(pc.match_substring_regex(image_uris, "^https?://"))
    compared_N = np.where(is_dated_N & ~is_address_N, cameras_N, -1)
    before, later = _jumps_back(image_uris, micros_N, compared_N)
    chosen = ~is_unset_N[later]  # one finding per image
    details = pc.binary_join_element_wise(
        _shown(captured_at, later[chosen]), _shown(captured_at, before[chosen]), " after "
    )
    never_set = np.flatnonzero(is_unset_N)
    findings = Findings().listed(
        "clock_resets", image_uris.take(pa.array(never_set)), _shown(captured_at, never_set)
    )
    uris = image_uris.take(pa.array(later[chosen]))
    findings = findings.listed("clock_resets", uris, details)
    latest_us = int(now.timestamp() * _SECOND_US) + _DAY_US
    early = np.flatnonzero(is_dated_N & (micros_N > latest_us))
    return findings.listed(
        "future_times", image_uris.take(pa.array(early)), _shown(captured_at, early)
    )


def _shown(times: pa.Array, rows: Ints) -> pa.Array:
    """The times of the rows as text, to the second."""
    seconds = times.take(pa.array(rows)).cast(pa.timestamp("s"), safe=False)
    return pc.strftime(seconds, "%Y-%m-%d %H:%M:%S")


def _jumps_back(uris: pa.Array, micros_N: Ints, cameras_N: Numbers) -> tuple[Ints, Ints]:
    """Rows of neighbours in a series whose time falls by more than a day: before, later."""
    rows = _rows_of_cameras(_cameras_out_of_order(uris, micros_N, cameras_N), cameras_N)
    names = uris.take(pa.array(rows))
    columns = {"camera": cameras_N[rows], "length": pc.binary_length(names), "name": names}
    keys = [(name, "ascending") for name in columns]
    rows = rows[pc.sort_indices(pa.table(columns), sort_keys=keys).to_numpy()]
    falling = _falling_cameras(micros_N[rows], cameras_N[rows])
    rows = rows[np.isin(cameras_N[rows], falling)]
    codes: dict[tuple[int, str], int] = {}
    images = zip(cameras_N[rows].tolist(), uris.take(pa.array(rows)).to_pylist(), strict=True)
    series = np.array(
        [codes.setdefault((camera, _series(uri)), len(codes)) for camera, uri in images],
        np.int64,
    )
    by_series = np.argsort(series, kind="stable")
    rows, series = rows[by_series], series[by_series]
    before, later = rows[:-1], rows[1:]
    jumps = (series[1:] == series[:-1]) & (micros_N[later] < micros_N[before] - _DAY_US)
    return before[jumps], later[jumps]


def _series(uri: str) -> str:
    """The path with the numbers that a camera counts up as 0: equal for the images of a series."""
    folder, _, name = uri.replace("\\", "/").rpartition("/")
    numbered = numbered_folder(folder)
    if numbered is not None:
        folder = f"{numbered[0]}/000{numbered[1]}"
    return f"{folder}/{_DIGITS.sub('0', name)}"


def _cameras_out_of_order(uris: pa.Array, micros_N: Ints, cameras_N: Numbers) -> Numbers:
    """The cameras whose images are not in order of name and time in the source.

    In most sources no camera is; then nothing needs to be sorted, and no name is copied.
    """
    lengths_N = pc.binary_length(uris).to_numpy(zero_copy_only=False)
    is_next = (cameras_N[1:] == cameras_N[:-1]) & (cameras_N[1:] >= 0)
    rises = _rises(uris[:-1], uris[1:], lengths_N[:-1], lengths_N[1:])
    rises &= micros_N[1:] >= micros_N[:-1]
    odd = cameras_N[1:][is_next & ~rises]
    # images of a camera with images of other cameras between them
    starts = run_starts_of_codes([cameras_N])
    ends = np.append(starts[1:], len(cameras_N)) - 1
    by_camera = np.argsort(cameras_N[starts], kind="stable")
    before, later = ends[by_camera[:-1]], starts[by_camera[1:]]
    is_same = (cameras_N[before] == cameras_N[later]) & (cameras_N[later] >= 0)
    before, later = before[is_same], later[is_same]
    names, later_names = (uris.take(pa.array(rows)) for rows in (before, later))
    rises = _rises(names, later_names, lengths_N[before], lengths_N[later])
    rises &= micros_N[later] >= micros_N[before]
    return np.unique(np.concatenate([odd, cameras_N[later[~rises]]]))


def _rises(before: pa.Array, later: pa.Array, n_before: Ints, n_later: Ints) -> Flags:
    """Whether each later name is longer than the name before, or equally long and not smaller."""
    result: Flags = np.asarray(pc.greater_equal(later, before)) & (n_later == n_before)
    result |= n_later > n_before
    return result


def _rows_of_cameras(chosen: Numbers, cameras_N: Numbers) -> Ints:
    """The rows of the images of the chosen cameras, ascending."""
    if len(chosen) == 0:
        return np.zeros(0, np.int64)
    is_chosen = np.zeros(int(cameras_N.max()) + 2, bool)  # camera -1 reads the last element
    is_chosen[chosen] = True
    return np.flatnonzero(is_chosen[cameras_N])


def _falling_cameras(micros: Ints, cameras: Numbers) -> Numbers:
    """Cameras with an image that is a day or more before an earlier image in the given order.

    A camera without such an image has no jump in any series. The images of a camera must be
    neighbours.
    """
    if len(micros) == 0:
        return np.zeros(0, np.int32)
    seconds = (micros - micros.min()) // _SECOND_US
    numbers = np.cumsum(np.append(False, cameras[1:] != cameras[:-1]))
    levels = numbers * (int(seconds.max()) + 1) + seconds  # each camera above the one before
    falls = np.maximum.accumulate(levels) - levels >= _DAY_S
    return np.unique(cameras[falls])
