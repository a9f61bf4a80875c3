"""Configuration of `ctc create-inventory`: one model per kind of source."""

from pydantic import Field

from ctc_ray.config.base import StageConfig


class InventoryConfig(StageConfig):
    """What every source of an inventory has."""

    source_uri: str = Field(min_length=1)
    """Where the rows come from."""


class CsvInventoryConfig(InventoryConfig):
    """A csv with one row per capture event or per image; UTF-8, comma, header line."""

    source_uri: str = Field(min_length=1)
    """The csv file."""
    event_column: str
    """Column with the id of the capture event; rows with the same id are one event."""
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


class DirInventoryConfig(InventoryConfig):
    """Class folders: ROOT/<class>/<image>; the head is called `class`."""

    source_uri: str = Field(min_length=1)
    """The root folder; each folder directly below it is a class, searched to any depth."""


class JsonInventoryConfig(InventoryConfig):
    """The inventory JSON of camera-trap-classifier 2019."""

    source_uri: str = Field(min_length=1)
    """The JSON file."""
