"""A folder of images, read by one rule: `create-inventory images` and `dir`, and `predict`.

Hidden files and what systems keep beside photographs are set aside, files that are no images too.
"""

from collections.abc import Sequence
from dataclasses import replace

from ctc_ray.config.choices import TimeSource
from ctc_ray.config.image_tree import EventConfig, TreeConfig
from ctc_ray.files import storage
from ctc_ray.inventory.clock_corrections import ClockCorrections, read_clock_corrections
from ctc_ray.inventory.events.assemble import Inventory
from ctc_ray.inventory.sources.files import (
    find_files,
    linked_twice,
    unreadable_folders,
    without_set_aside,
)
from ctc_ray.inventory.sources.image_tree import EventRules, TreeImages, layout_pattern, read_tree
from ctc_ray.stages.create_inventory.files import FoundImages, find_images


def images_below(
    folder_uri: str, *, time_from: Sequence[TimeSource], n_threads: int
) -> FoundImages:
    """The images below a folder, and findings about all other files.

    Args:
        time_from: see `find_images`.
        n_threads: files that are read at once.

    Raises:
        ConfigError: the folder does not exist.
    """
    closed: list[OSError] = []
    files, hidden = without_set_aside(find_files(folder_uri, on_closed=closed.append))
    found = find_images(files, time_from=time_from, n_threads=n_threads)
    twice = linked_twice(folder_uri, found.files)
    findings = unreadable_folders(closed).plus(hidden).plus(found.findings).plus(twice)
    return replace(found, findings=findings)


def read_image_folder(config: TreeConfig, folder_uri: str, *, n_threads: int) -> Inventory:
    """The inventory of the images below a folder.

    Raises:
        ConfigError: the folder does not exist or has no image, or a setting does not fit it.
    """
    if config.layout is not None:
        layout_pattern(config.layout)  # a wrong one is an error before any file is read
    corrections = clock_corrections(config)
    found = images_below(folder_uri, time_from=config.time_from, n_threads=n_threads)
    triggers = found.triggers if config.camera_events else None
    inventory = read_tree(
        folder_uri,
        TreeImages(found.files, found.captured_at, triggers),
        layout=config.layout,
        rules=EventRules(config.event_gap_s, config.max_images_per_event, corrections),
        allow_unmatched=config.allow_unmatched,
    )
    return replace(inventory, findings=found.findings.plus(inventory.findings))


def clock_corrections(config: EventConfig) -> ClockCorrections:
    """The corrections of the configured file, or none."""
    uri = config.clock_corrections_uri
    return ClockCorrections() if uri is None else read_clock_corrections(uri)


def digest_of_corrections(config: EventConfig) -> dict[str, str]:
    """URI of the configured corrections -> SHA-256 of the file; empty if there are none."""
    uri = config.clock_corrections_uri
    return {} if uri is None else {uri: storage.digest(uri)}
