"""Images whose time shows that the camera's clock was set back, or never set.

N images in the order of the source.
"""

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts_of_codes
from ctc_ray.inventory.findings import Findings

_SECOND_US = 1_000_000
_DAY_S = 86_400
_DAY_US = _DAY_S * _SECOND_US
_SET_US = int(np.datetime64("2000-01-02", "us").astype(np.int64))  # clocks begin the day before
# what cameras call their folders, three digits that count up (DCF, JEITA CP-3461)
_DCF_FOLDER = re.compile(r"\d{3}[A-Za-z0-9_]{5}")
_DIGITS = re.compile(r"\d+")

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


def check_clocks(
    image_uris: pa.Array, captured_at: pa.Array | None, cameras_N: Numbers
) -> Findings:
    """`clock_resets`: images whose time shows that the camera's clock was set back, or never set.

    1. The year is before 2000, or the day is 2000-01-01: where clocks begin.
    2. In a series that a camera has numbered, the time is more than a day before that of the image
       before it. Only the first image behind the jump is listed. A series are the images of one
       camera and one folder whose names differ in nothing but digits, shorter names first so that
       9 comes before 10; folders as a camera makes them (100EK113, 101EK113) are one. Images of
       unknown cameras are left out here: they may be of many; and so are web addresses, which
       are no names that a camera gave.

    Args:
        captured_at: timestamp[us]; None: no image has a time.
        cameras_N: number of each image's camera; -1 is not known.
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
    return findings.listed("clock_resets", uris, details)


def _shown(times: pa.Array, places: Ints) -> pa.Array:
    seconds = times.take(pa.array(places)).cast(pa.timestamp("s"), safe=False)
    return pc.strftime(seconds, "%Y-%m-%d %H:%M:%S")


def _jumps_back(uris: pa.Array, micros_N: Ints, cameras_N: Numbers) -> tuple[Ints, Ints]:
    """Neighbours in a series of which the later is more than a day before: places of both."""
    places = _of_cameras(_cameras_out_of_order(uris, micros_N, cameras_N), cameras_N)
    names = uris.take(pa.array(places))
    columns = {"camera": cameras_N[places], "length": pc.binary_length(names), "name": names}
    keys = [(name, "ascending") for name in columns]
    places = places[pc.sort_indices(pa.table(columns), sort_keys=keys).to_numpy()]
    falling = _falling_cameras(micros_N[places], cameras_N[places])
    places = places[np.isin(cameras_N[places], falling)]
    numbers: dict[tuple[int, str], int] = {}
    named = zip(cameras_N[places].tolist(), uris.take(pa.array(places)).to_pylist(), strict=True)
    series = np.array(
        [numbers.setdefault((camera, _series(uri)), len(numbers)) for camera, uri in named],
        np.int64,
    )
    by_series = np.argsort(series, kind="stable")
    places, series = places[by_series], series[by_series]
    before, later = places[:-1], places[1:]
    jumps = (series[1:] == series[:-1]) & (micros_N[later] < micros_N[before] - _DAY_US)
    return before[jumps], later[jumps]


def _series(uri: str) -> str:
    """What all images of a series have in common."""
    folder, _, name = uri.replace("\\", "/").rpartition("/")
    parent, _, last = folder.rpartition("/")
    if _DCF_FOLDER.fullmatch(last):
        folder = f"{parent}/000{last[3:]}"
    return f"{folder}/{_DIGITS.sub('0', name)}"


def _cameras_out_of_order(uris: pa.Array, micros_N: Ints, cameras_N: Numbers) -> Numbers:
    """The cameras whose images are not both by name and by time as the source has them.

    Most sources are in this order; then nothing is sorted, and no name is copied.
    """
    lengths_N = pc.binary_length(uris).to_numpy(zero_copy_only=False)
    is_next = (cameras_N[1:] == cameras_N[:-1]) & (cameras_N[1:] >= 0)
    rises = _rises(uris[:-1], uris[1:], lengths_N[:-1], lengths_N[1:])
    rises &= micros_N[1:] >= micros_N[:-1]
    odd = cameras_N[1:][is_next & ~rises]
    # and where other cameras' images lie between
    starts = run_starts_of_codes([cameras_N])
    ends = np.append(starts[1:], len(cameras_N)) - 1
    by_camera = np.argsort(cameras_N[starts], kind="stable")
    before, later = ends[by_camera[:-1]], starts[by_camera[1:]]
    is_same = (cameras_N[before] == cameras_N[later]) & (cameras_N[later] >= 0)
    before, later = before[is_same], later[is_same]
    names, later_names = (uris.take(pa.array(places)) for places in (before, later))
    rises = _rises(names, later_names, lengths_N[before], lengths_N[later])
    rises &= micros_N[later] >= micros_N[before]
    return np.unique(np.concatenate([odd, cameras_N[later[~rises]]]))


def _rises(before: pa.Array, later: pa.Array, n_before: Ints, n_later: Ints) -> Flags:
    """Whether each later name is longer than the one before, or as long and not smaller."""
    result: Flags = np.asarray(pc.greater_equal(later, before)) & (n_later == n_before)
    result |= n_later > n_before
    return result


def _of_cameras(chosen: Numbers, cameras_N: Numbers) -> Ints:
    """The places of these cameras' images."""
    if len(chosen) == 0:
        return np.zeros(0, np.int64)
    is_chosen = np.zeros(int(cameras_N.max()) + 2, bool)  # the last is -1
    is_chosen[chosen] = True
    return np.flatnonzero(is_chosen[cameras_N])


def _falling_cameras(micros: Ints, cameras: Numbers) -> Numbers:
    """Cameras with an image a day or more before any earlier one; images of one lie together.

    Without that no series of it has a jump, whatever the series are.
    """
    if len(micros) == 0:
        return np.zeros(0, np.int32)
    seconds = (micros - micros.min()) // _SECOND_US
    numbers = np.cumsum(np.append(False, cameras[1:] != cameras[:-1]))
    levels = numbers * (int(seconds.max()) + 1) + seconds  # every camera above the one before
    falls = np.maximum.accumulate(levels) - levels >= _DAY_S
    return np.unique(cameras[falls])
