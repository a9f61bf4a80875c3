"""Which files the rows of a table may name, and whether they are there at all.

Rows come from other people's tables. They choose among the images below a root, not among all files
that this machine or its credentials can read.
"""

import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from ctc_ray.errors import ConfigError, holds_credentials, masked
from ctc_ray.files import storage
from ctc_ray.schemas import Failure

_LOOKED_FOR = 48

_FILE = "file"
# credentials; an address of IPv4 or IPv6, never a name
_NO_BUCKET = re.compile(r"[^/]*@|\d+\.\d+\.\d+\.\d+(/|$)|\[")
_THREADS = 16


def image_uri(root_uri: str | None, uri: str, *, allow: Collection[str] = ()) -> str | Failure:
    """The URI of an image that a row names, or `not_allowed`.

    A row may name paths without `..`; below a root, also URIs of the root's scheme and of those in
    `allow`; without a root, s3:// and gs://. A signed URI is refused. `file://` is only for names
    that are not valid UTF-8, unless it is in `allow`. A bucket called like an IP address does not
    exist (S3 bucket naming rules); asking for it would reach another machine.
    """
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower() if separator else ""
    if scheme == _FILE:
        is_allowed = _FILE in allow or not _is_utf8(uri)
    elif not scheme:
        is_allowed = ".." not in uri.split("/")
    else:
        is_allowed = root_uri is None or scheme == _scheme(root_uri) or scheme in allow
        is_allowed = is_allowed and not (_NO_BUCKET.match(rest) or holds_credentials(uri))
    return storage.under_root(root_uri, uri) if is_allowed else Failure.NOT_ALLOWED


def _scheme(uri: str) -> str:
    return uri.partition("://")[0].lower() if "://" in uri else ""


def _is_utf8(uri: str) -> bool:
    path = storage.local_path(uri)
    return storage.as_text(path) == path


def rows_to_look_for(n_rows: int) -> npt.NDArray[np.int64]:
    """A few dozen rows from the first to the last, ascending."""
    return np.unique(np.linspace(0, max(n_rows - 1, 0), min(n_rows, _LOOKED_FOR)).astype(np.int64))


def require_reachable(
    uris: Sequence[str],
    *,
    root_uri: str | None,
    allow: Collection[str],
    n_rows: int,
    may_be_missing: bool = False,
) -> None:
    """Check that one of some images is there: a wrong root is noticed before the work begins.

    Args:
        uris: those of `rows_to_look_for`, as the rows name them.
        n_rows: images of the whole table, for the message.
        may_be_missing: all of them; then only a store that refuses all is an error.

    Raises:
        ConfigError: none is there, or may be read; names the first that was tried.
        ConnectionError: the object store does not answer.
    """
    located = [image_uri(root_uri, uri, allow=allow) for uri in uris]
    with ThreadPoolExecutor(_THREADS) as pool:
        answers = list(pool.map(_look, located))
    if not uris or any(answer is None for answer in answers):
        return
    if may_be_missing and not all(answer is Failure.UNREADABLE for answer in answers):
        return
    first = next((uri for uri in located if not isinstance(uri, Failure)), uris[0])
    what = f"none of {len(uris)} images that were looked for "
    if all(one is Failure.NOT_ALLOWED for one in answers):
        raise ConfigError(
            f"{what}may be read; the first is {masked(uris[0])}: a path has no .. (name the "
            "folder above with --image-root-uri), and another scheme needs --allow-scheme"
        )
    if all(one is Failure.UNREADABLE for one in answers):
        raise ConfigError(f"{what}can be read; the first is {first}; are the credentials right?")
    raise ConfigError(f"{what}is there (of {n_rows:,}), {wrong_root(first)}")


def wrong_root(first_tried: str) -> str:
    """What to say where no image is found."""
    return f"first {first_tried}: is --image-root-uri the folder that the image paths start from?"


def _look(uri: str | Failure) -> Failure | None:
    """None if the file is there, else why not."""
    if isinstance(uri, Failure):
        return uri
    try:
        if storage.is_remote(uri):
            storage.read_bytes(uri, 1)  # one may be allowed to ask for a size and not to read
            return None
        return None if storage.is_file(uri) else Failure.MISSING
    except FileNotFoundError:
        return Failure.MISSING
    except ConnectionError:
        raise
    except (OSError, ConfigError):
        return Failure.UNREADABLE
