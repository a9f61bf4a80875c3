"""Whether the images of a table can be found at all, before the work on them begins."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage

_LOOKED_FOR = 48
_AT_ONCE = 16


def rows_to_look_for(n_rows: int) -> npt.NDArray[np.int64]:
    """A few dozen rows from the first to the last, ascending."""
    return np.unique(np.linspace(0, max(n_rows - 1, 0), min(n_rows, _LOOKED_FOR)).astype(np.int64))


def require_some_image(root_uri: str | None, image_uris: Sequence[str], *, n_rows: int) -> None:
    """Check that not all of these images are missing.

    Args:
        image_uris: those of `rows_to_look_for`.
        n_rows: images of the whole table, for the message.

    Raises:
        ConfigError: names the first path that was tried.
    """
    tried = [storage.under_root(root_uri, uri) for uri in image_uris]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        if tried and not any(pool.map(_may_be_there, tried)):
            raise ConfigError(
                f"none of {len(tried)} images that were looked for is there (of {n_rows:,}), "
                f"{wrong_root(tried[0])}"
            )


def wrong_root(first_tried: str) -> str:
    """What to say where no image is found."""
    return f"first {first_tried}: is --image-root-uri the folder that the image paths start from?"


def _may_be_there(uri: str) -> bool:
    try:
        return storage.is_file(uri)
    except ConnectionError:
        raise
    except (OSError, ConfigError):  # says nothing about the root
        return True
