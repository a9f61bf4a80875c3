"""Whether the images can be read at all, before the work begins.

A helper of `ctc create-dataset`.
"""

import numpy as np

from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.files.image_uris import N_ASKED_FOR, require_reachable
from ctc_ray.stages.create_dataset.inventory_rows import find_rows


def require_image_root(config: CreateDatasetConfig) -> None:
    """Fail early if no image can be read (wrong path, disk not mounted), before all are `missing`.

    Raises:
        ConfigError: there is no such folder, or of a few dozen images none is there.
    """
    root = config.image_root_uri
    try:
        is_there = root is None or storage.is_folder(root)
    except FileNotFoundError:
        is_there = False
    except PermissionError:  # to read objects does not mean to be allowed to list them
        is_there = True
    if not is_there:
        raise ConfigError(
            f"{root}: no such folder; --image-root-uri names the one that image paths are relative "
            "to"
        )
    inventory = find_rows(config.inventory_uri)
    rows = np.linspace(0, inventory.part_ends[-1] - 1, N_ASKED_FOR).astype(np.int64)
    uris = inventory.read(np.unique(rows), ["image_uri"])["image_uri"].to_pylist()
    may_be_missing = config.max_failure_fraction == 1
    require_reachable(uris, root_uri=root, allow=config.allow_scheme, may_be_missing=may_be_missing)
