"""Whether the images can be read at all, before the work begins.

A helper of `ctc create-dataset`.
"""

from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.files.image_uris import require_reachable, rows_to_look_for
from ctc_ray.runs.finished_inventory import find_rows


def require_image_root(config: CreateDatasetConfig) -> None:
    """Fail early if no image can be read (wrong path, disk not mounted), before all are `missing`.

    With `check`, or where all images may fail, images that are missing are no error.

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
    n_rows = inventory.part_ends[-1]
    require_reachable(
        inventory.read(rows_to_look_for(n_rows), ["image_uri"])["image_uri"].to_pylist(),
        root_uri=root,
        allow=config.allow_scheme,
        n_rows=n_rows,
        may_be_missing=config.check is not None or config.max_failure_fraction == 1,
    )
