"""Image paths as tables of other programs and systems write them."""

import posixpath
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT, holds_any
from ctc_ray.errors import CREDENTIALS, ConfigError, masked
from ctc_ray.inventory.findings import Findings

_OF_WINDOWS = r"^(?:[A-Za-z]:/|//[^/])"  # a drive, or a computer of the network


def portable_paths(
    uris: pa.Array, *, where: str, strip_prefix: str | None = None
) -> tuple[pa.Array, Findings]:
    """The paths with slashes for the back-slashes of Windows, without the prefix; URIs stay.

    Args:
        where: the source's name, for messages.
        strip_prefix: folder that is taken away where a path begins with it.

    Returns:
        The paths, large_string, and the finding `windows_paths`: how many had a back-slash.

    Raises:
        ConfigError: no path begins with the prefix, a path is absolute as in Windows, so that it
            cannot be found here, or a URI holds credentials.
    """
    uris = uris.cast(TEXT)
    found = Findings()
    if holds_any(uris, "\\"):
        has_backslash = pc.fill_null(pc.match_substring(uris, "\\"), False)
        is_uri = pc.fill_null(pc.match_substring(uris, "://"), True)
        converted = pc.and_(has_backslash, pc.invert(is_uri))
        uris = pc.if_else(converted, pc.replace_substring(uris, "\\", "/"), uris)
        found = found.counted(windows_paths=int(pc.sum(converted).as_py() or 0))
    if strip_prefix is not None:
        uris = _without_prefix(uris, strip_prefix.replace("\\", "/").rstrip("/"), where)
    _require_findable(uris, where)
    _require_no_credentials(uris, where)
    return uris, found


def _without_prefix(uris: pa.Array, prefix: str, where: str) -> pa.Array:
    begins = pc.fill_null(pc.starts_with(uris, f"{prefix}/"), False)
    if not pc.any(begins, min_count=0).as_py():
        first = uris.drop_null()[:1].to_pylist()
        example = f"; the first is {first[0]}" if first else ""
        raise ConfigError(f"{where}: no image path begins with --strip-prefix {prefix}{example}")
    rest = pc.utf8_slice_codeunits(uris, len(prefix) + 1)
    return pc.if_else(begins, rest, uris)


def _require_no_credentials(uris: pa.Array, where: str) -> None:
    if not holds_any(uris, "@?&"):
        return
    with_credentials = pc.fill_null(pc.match_substring_regex(uris, CREDENTIALS), False)
    n_found = int(pc.sum(with_credentials).as_py() or 0)
    if n_found:
        first = masked(uris.filter(with_credentials)[0].as_py())
        raise ConfigError(
            f"{where}: {n_found:,} image URIs hold credentials, such as {first}; take them out "
            "and give them in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE) or by a role"
        )


def _require_findable(uris: pa.Array, where: str) -> None:
    if not (holds_any(uris, ":") or pc.any(pc.starts_with(uris, "//"), min_count=0).as_py()):
        return
    of_windows = pc.fill_null(pc.match_substring_regex(uris, _OF_WINDOWS), False)
    if not pc.any(of_windows, min_count=0).as_py():
        return
    paths = uris.filter(of_windows)
    several = paths.take(pa.array(np.linspace(0, len(paths) - 1, 100).astype(np.int64)))
    folders = [posixpath.dirname(path) for path in several.to_pylist()]
    shared = posixpath.commonprefix([f"{folder}/" for folder in folders]).rpartition("/")[0]
    prefix = shared if re.match(_OF_WINDOWS, f"{shared}/") else folders[0]
    raise ConfigError(
        f"{where}: {len(paths):,} image paths are absolute paths of Windows, such as {paths[0]}; "
        f'give the folder that is here the image root, e.g. --strip-prefix "{prefix}"'
    )
