"""Whether the folder of the images can be read at all, before an image is asked for.

A helper of `ctc create-dataset`.
"""

import numpy as np

from ctc_ray import storage
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError
from ctc_ray.schemas import Failure
from ctc_ray.stages import runtime
from ctc_ray.stages.inventory_rows import find_rows

_IMAGES_ASKED_FOR = 8  # where a folder must not be listed


def require_image_root(config: CreateDatasetConfig) -> None:
    """Stop before every image is found missing, and stays so: a wrong path, a disk not mounted.

    Raises:
        ConfigError: there is no such folder, or the store refuses it and the first images.
    """
    root = config.image_root_uri
    try:
        is_there = root is None or storage.is_folder(root)
    except FileNotFoundError:
        is_there = False
    except PermissionError as error:  # to read objects does not mean to be allowed to list them
        _require_access(config, error)
        return
    if not is_there:
        raise ConfigError(
            f"{root}: no such folder; --image-root-uri names the one that image paths are relative "
            "to"
        )


def _require_access(config: CreateDatasetConfig, refusal: PermissionError) -> None:
    inventory = find_rows(config.inventory_uri)
    first = np.arange(min(_IMAGES_ASKED_FOR, inventory.part_ends[-1]))
    for uri in inventory.read(first, ["image_uri"])["image_uri"].to_pylist():
        raw = runtime.fetch(storage.under_root(config.image_root_uri, uri))
        if raw is not Failure.UNREADABLE:
            return
    raise ConfigError(
        f"{config.image_root_uri}: the store refuses this folder and the first images in it; are "
        f"the credentials right? ({refusal})"
    )
