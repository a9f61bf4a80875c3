"""Configuration of `ctc create-inventory`: one model per kind of source."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from ctc_ray.config.base import StageConfig


class InventoryConfig(StageConfig):
    """What every source of an inventory has."""

    operational: ClassVar[frozenset[str]] = StageConfig.operational | {"read_threads"}

    source_uri: str = Field(min_length=1)
    """Where the rows come from."""
    event_gap_s: float = Field(60, ge=0)
    """Where the source names no events: seconds between an image and the one before it, at the same
    deployment, up to which both are of one capture event."""
    max_images_per_event: int | None = Field(None, gt=0)
    """Where the source names no events: a longer event is cut."""
    image_root_uri: str | None = None
    """Folder that the source's image paths are relative to; only used to look at the files."""
    check_files: bool = False
    """Look whether every image is there; those that are not are findings."""
    same_content: bool = False
    """Read every image whole and find those that are the same file twice."""
    rare_class_events: int = Field(10, ge=0)
    """A class of fewer capture events is a finding."""
    read_threads: int = Field(32, gt=0)
    """Files that are read at once."""


class CsvInventoryConfig(InventoryConfig):
    """A csv with one row per capture event or per image.

    UTF-8 with or without BOM; a header line; comma, semicolon or tab.
    """

    source_uri: str = Field(min_length=1)
    """The csv file."""
    event_column: str | None = None
    """Column with the id of the capture event; rows with the same id are one event. Without it,
    events are made of the gaps in time (--event-gap-s) between the images of a deployment."""
    image_columns: tuple[str, ...] = Field(min_length=1)
    """Columns with the images, in the order in which they were taken; empty cells are skipped."""
    head_columns: tuple[str, ...] = ()
    """Columns with labels; each becomes a head. An empty cell or -1 is a missing label."""
    meta_columns: tuple[str, ...] = ()
    """Further columns to carry along to the predictions."""
    location_column: str | None = None
    """Column with the place, for --split.by location."""
    deployment_column: str | None = None
    """Column with the deployment (one camera at one place for a period)."""
    captured_at_column: str | None = None
    """Column with the local time of capture, ISO 8601 or the EXIF form 2021:04:11 20:43:09."""

    @model_validator(mode="after")
    def _events_can_be_made(self) -> Self:
        camera = self.deployment_column or self.location_column
        if self.event_column is None and (self.captured_at_column is None or camera is None):
            raise ValueError(
                "a csv needs event_column, or captured_at_column and one of deployment_column and"
                " location_column, of which events are made"
            )
        return self


class DirInventoryConfig(InventoryConfig):
    """Class folders: ROOT/<class>/<image>; the head is called `class`."""

    source_uri: str = Field(min_length=1)
    """The root folder; each folder directly below it is a class, searched to any depth."""


class ImagesInventoryConfig(InventoryConfig):
    """A tree of images without labels; times from EXIF, capture events by gap."""

    source_uri: str = Field(min_length=1)
    """The root folder, searched to any depth."""
    layout: str | None = None
    """What the folders mean, from the root on, e.g. "{location}/{deployment}"; a part in no braces
    must be there as it is, * stands for any one folder."""


class CocoInventoryConfig(InventoryConfig):
    """COCO Camera Traps, or plain COCO, as one JSON file."""

    source_uri: str = Field(min_length=1)
    """The JSON file."""


class CamtrapDpInventoryConfig(InventoryConfig):
    """A Camtrap DP package, version 0.1 to 1.0.2."""

    source_uri: str = Field(min_length=1)
    """The package: its folder, its datapackage.json, or the whole as one zip file."""


class MegadetectorInventoryConfig(InventoryConfig):
    """An inventory with the boxes of a MegaDetector result file added, by file name."""

    source_uri: str = Field(min_length=1)
    """The MegaDetector JSON file."""
    inventory_uri: str = Field(min_length=1)
    """The inventory that the boxes are added to."""


class JsonInventoryConfig(InventoryConfig):
    """The inventory JSON of camera-trap-classifier 2019."""

    source_uri: str = Field(min_length=1)
    """The JSON file."""
