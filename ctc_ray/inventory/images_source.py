"""A folder of images without labels as an inventory."""

from ctc_ray.errors import ConfigError
from ctc_ray.inventory.assembly import Inventory, assemble
from ctc_ray.inventory.folders import find_files, one_event_per_file, unique_text


def read_images(uri: str) -> Inventory:
    """Every file below the folder, at any depth, is an image and an event of its own.

    The event's id is the path relative to the folder (percent-encoded behind a slash where it is
    not UTF-8). There are no heads. Files that are no images stay: they will be failures.

    Raises:
        ConfigError: there is no such folder, or no file in it.
    """
    files = find_files(uri)
    if not files:
        raise ConfigError(f"{uri}: no file in this folder")
    event_ids = [unique_text(file.path) for file in files]
    return assemble(one_event_per_file(event_ids, files, {}), where=uri)
