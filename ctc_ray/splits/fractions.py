"""Shares of the splits, and the names that a split may have."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.columns.md5 import md5_first_word
from ctc_ray.errors import ConfigError

_NOT_IN_NAMES = re.compile(r"[/\\=%?#\x00-\x1f\x7f]")  # a split is a folder `split=<name>` in a URI
_MAX_NAME_BYTES = 200


def md5_fraction(event_ids: pa.Array) -> npt.NDArray[np.float64]:
    """A number in [0, 1] per event, bit for bit as in the original: 24 bits of the id's MD5 sum."""
    return (md5_first_word(event_ids) >> 8) / np.float64(0xFFFFFF)


def cumulative_shares(fractions: Mapping[str, float]) -> tuple[Sequence[str], Sequence[float]]:
    """Splits with a non-zero share, in the given order, and the cumulative upper bound of each.

    Raises:
        ConfigError: a share is not in [0, 1], the shares do not sum to 1 within 1e-9, or a split's
            name cannot be a folder.
    """
    if any(not 0 <= share <= 1 for share in fractions.values()):
        raise ConfigError(f"split.fractions must be between 0 and 1: {dict(fractions)}")
    total = math.fsum(fractions.values())
    if abs(total - 1) > 1e-9:
        raise ConfigError(f"split.fractions add up to {total:g}, not to 1")
    used = {name: share for name, share in fractions.items() if share > 0}
    require_folder_names(used)
    return list(used), list(np.cumsum(list(used.values())))


def require_folder_names(names: Iterable[str]) -> None:
    """Refuse names of splits that cannot be folders.

    Raises:
        ConfigError: a name is empty, longer than 200 bytes, or has a character with a meaning in
            URIs.
    """
    for name in names:
        if not name or _NOT_IN_NAMES.search(name) or len(name.encode()) > _MAX_NAME_BYTES:
            raise ConfigError(
                f"{name!r} cannot be the name of a split: it becomes a folder, so it must have 1 "
                f"to {_MAX_NAME_BYTES} bytes and none of / \\ = % ? # (rename it in "
                "split.fractions or in the metadata field)"
            )
