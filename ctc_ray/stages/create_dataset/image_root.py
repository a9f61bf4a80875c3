"""Whether the images can be read at all, before the work begins.

A helper of `ctc create-dataset`.
"""

import numpy as np

from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.files.image_root import require_some_image, rows_to_look_for
from ctc_ray.files.prefetch import fetch
from ctc_ray.schemas import Failure
from ctc_ray.stages.create_dataset.inventory_rows import find_rows

_IMAGES_ASKED_FOR = 8  # of an object store


def require_image_root(config: CreateDatasetConfig) -> None:
    """Fail early if no image can be read (wrong path, disk not mounted), before all are `missing`.

    With `check`, or where all images may fail, images that are missing are no error.

    Raises:
        ConfigError: there is no such folder, none of a few dozen images is in it, or an object
            store refuses all images asked for.
    """
    root, refusal = config.image_root_uri, None
    try:
        is_there = root is None or storage.is_folder(root)
    except FileNotFoundError:
        is_there = False
    except PermissionError as error:  # to read objects does not mean to be allowed to list them
        is_there, refusal = True, error
    if not is_there:
        raise ConfigError(
            f"{root}: no such folder; --image-root-uri names the one that image paths are relative "
            "to"
        )
    _require_access(config, refusal)
    if config.check is None and config.max_failure_fraction < 1:
        inventory = find_rows(config.inventory_uri)
        n_rows = inventory.part_ends[-1]
        uris = inventory.read(rows_to_look_for(n_rows), ["image_uri"])["image_uri"].to_pylist()
        require_some_image(config.image_root_uri, uris, n_rows=n_rows)


def _require_access(config: CreateDatasetConfig, refusal: PermissionError | None) -> None:
    inventory = find_rows(config.inventory_uri)
    n_rows = inventory.part_ends[-1]
    rows = np.unique(np.linspace(0, n_rows - 1, _IMAGES_ASKED_FOR).astype(np.int64))
    found = inventory.read(rows, ["image_uri"])["image_uri"].to_pylist()
    uris = [storage.under_root(config.image_root_uri, uri) for uri in found]
    if not all(map(storage.is_remote, uris)):
        return
    for uri in uris:
        if fetch(uri) is not Failure.UNREADABLE:
            return
    asked = f"{len(uris)} of {n_rows} images that were asked for"
    raise ConfigError(
        f"{config.image_root_uri or uris[0]}: the store refuses all {asked}; are the credentials "
        f"right?{f' ({refusal})' if refusal else ''}"
    )
