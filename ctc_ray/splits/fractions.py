"""Shares of [0, 1] and the hashes that fall into them."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.columns.md5 import md5_first_word
from ctc_ray.errors import ConfigError

_NOT_IN_NAMES = re.compile(r"[/\\=%?#\x00-\x1f\x7f]")  # a split is a folder `split=<name>` of a URI
_MAX_NAME_BYTES = 200


def md5_fraction(event_ids: pa.Array) -> npt.NDArray[np.float64]:
    """The number in [0, 1] that the original gives each event, bit for bit: 24 bits of MD5."""
    return (md5_first_word(event_ids) >> 8) / np.float64(0xFFFFFF)


def cumulative_shares(fractions: Mapping[str, float]) -> tuple[Sequence[str], Sequence[float]]:
    """The splits that get anything, and where each one's part of [0, 1] ends."""
    if any(not 0 <= share <= 1 for share in fractions.values()):
        raise ConfigError(f"split.fractions must lie between 0 and 1: {dict(fractions)}")
    total = math.fsum(fractions.values())
    if abs(total - 1) > 1e-9:
        raise ConfigError(f"split.fractions add up to {total:g}, not to 1")
    used = {name: share for name, share in fractions.items() if share > 0}
    require_folder_names(used)
    return list(used), list(np.cumsum(list(used.values())))


def require_folder_names(names: Iterable[str]) -> None:
    """Refuse names of splits that cannot be folders.

    Raises:
        ConfigError: a name is empty, too long, or has a letter that a URI reads otherwise.
    """
    for name in names:
        if not name or _NOT_IN_NAMES.search(name) or len(name.encode()) > _MAX_NAME_BYTES:
            raise ConfigError(
                f"{name!r} cannot be the name of a split: it becomes a folder, so it must not be "
                "empty, too long, or contain any of / \\ = % ? #"
            )
