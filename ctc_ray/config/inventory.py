"""Configuration of `ctc create-inventory`: one model per kind of source."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from ctc_ray.config.base import Config, Shown, StageConfig
from ctc_ray.config.choices import MachineLabels
from ctc_ray.config.image_tree import EventConfig, TreeConfig


class InventoryConfig(StageConfig):
    """Settings of every kind of source."""

    operational: ClassVar[frozenset[str]] = StageConfig.operational | {"read_threads"}
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Checks": ("image_root_uri", "check_files", "same_content"),
    }

    source_uri: str = Field(min_length=1)
    """File or folder to read."""
    image_root_uri: Annotated[str | None, Shown("paths as they are")] = None
    """Folder that the image paths of the source are relative to. Used only by the checks."""
    check_files: bool = False
    """Check that every image file exists. Report missing files as findings."""
    same_content: bool = False
    """Read every image and report identical files as findings."""
    read_threads: int = Field(32, gt=0)
    """Number of files that are read at the same time."""


class ListedPathsConfig(Config):
    """Settings of the sources that list the paths of images, which may come from another system."""

    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Paths of the images": ("strip_prefix",),
    }

    strip_prefix: Annotated[str | None, Shown("nothing")] = None
    """Folder to take away where an image path begins with it, for example "D:\\survey". Slashes
    replace back-slashes in any case."""


class LabelCheckConfig(Config):
    """How the labels of a source are checked."""

    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Checks": (*InventoryConfig.option_groups["Checks"], "rare_class_events"),
    }

    rare_class_events: int = Field(10, ge=0)
    """Report classes with fewer capture events than this as findings."""


class CsvInventoryConfig(EventConfig, ListedPathsConfig, LabelCheckConfig, InventoryConfig):
    """Read a csv file with one row per capture event or per image.

    The file is UTF-8, or UTF-16 with its mark, has a header line, and is separated by comma,
    semicolon or tab.
    """

    example: ClassVar[str] = """\
ctc create-inventory csv --source-uri events.csv --output-uri inventory \\
    --event-column id --image-columns image1 image2 image3 \\
    --head-columns species count --location-column site"""
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Columns of the csv": (
            "event_column",
            "image_columns",
            "path_columns",
            "head_columns",
            "meta_columns",
            "location_column",
            "deployment_column",
            "captured_at_column",
            "time_format",
        ),
        **ListedPathsConfig.option_groups,
        **EventConfig.option_groups,
        **LabelCheckConfig.option_groups,
    }

    source_uri: str = Field(min_length=1)
    """The csv file."""
    event_column: Annotated[str | None, Shown("events by time, see --event-gap-s")] = None
    """Column with the id of the capture event. Rows with the same id are one event. Without this
    column, --captured-at-column and --deployment-column or --location-column are needed."""
    image_columns: tuple[str, ...] = ()
    """Columns with the images, in the order in which they were taken. Empty cells are skipped.
    Either these or --path-columns are required."""
    path_columns: tuple[str, ...] = ()
    """Instead of --image-columns: the columns with the folders and the file name of one image, for
    example RelativePath File."""
    head_columns: tuple[str, ...] = ()
    """Columns with labels. Each column becomes a head. An empty cell or -1 is a missing label.
    A head may be made of several columns: species=genus+epithet."""
    meta_columns: tuple[str, ...] = ()
    """Other columns to copy to the dataset and the predictions."""
    location_column: str | None = None
    """Column with the location, for --split.by location in create-dataset."""
    deployment_column: str | None = None
    """Column with the deployment: one camera at one location for a period."""
    captured_at_column: str | None = None
    """Column with the local capture time: ISO 8601, as in EXIF, 2021:04:11 20:43:09, or with the
    year first. Day and month are never guessed: for 5/3/2021, give --time-format."""
    time_format: Annotated[str | None, Shown("see --captured-at-column")] = None
    """Form of the capture times, with the codes of Python's strptime: "%d.%m.%Y %H:%M"."""

    @field_validator("time_format")
    @classmethod
    def _can_be_read(cls, time_format: str | None) -> str | None:
        if time_format is not None:
            some_day = datetime(2021, 5, 3, 13, 4, 5)  # a camera knows no zone
            try:
                read = datetime.strptime(some_day.strftime(time_format), time_format)
            except ValueError as error:
                raise ValueError(f"is no form of a time: {error}") from error
            if (read.year, read.month, read.day, read.hour) != (2021, 5, 3, 13):
                raise ValueError(f"{time_format!r} does not give year, month, day and hour")
        return time_format

    @model_validator(mode="after")
    def _events_can_be_made(self) -> Self:
        if bool(self.image_columns) == bool(self.path_columns):
            raise ValueError("give either --image-columns or --path-columns")
        camera = self.deployment_column or self.location_column
        if self.event_column is None and (self.captured_at_column is None or camera is None):
            raise ValueError(
                "capture events need --event-column, or --captured-at-column together with "
                "--deployment-column or --location-column"
            )
        return self


class DirInventoryConfig(LabelCheckConfig, InventoryConfig):
    """Read class folders, ROOT/CLASS/IMAGE. The head is called `class`."""

    example: ClassVar[str] = """\
ctc create-inventory dir --source-uri photos --output-uri inventory"""

    source_uri: str = Field(min_length=1)
    """The root folder. Each folder in it is a class; its subfolders belong to the class."""


class ImagesInventoryConfig(TreeConfig, LabelCheckConfig, InventoryConfig):
    """Read a folder of images, with capture times from EXIF. Folders may be places and labels."""

    example: ClassVar[str] = """\
ctc create-inventory images --source-uri photos --output-uri inventory \\
    --layout "{location}/{deployment}\""""
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **TreeConfig.option_groups,
        **LabelCheckConfig.option_groups,
    }

    source_uri: str = Field(min_length=1)
    """The root folder, with subfolders of any depth."""


class CocoInventoryConfig(EventConfig, ListedPathsConfig, LabelCheckConfig, InventoryConfig):
    """Read COCO Camera Traps or plain COCO, one JSON file."""

    example: ClassVar[str] = """\
ctc create-inventory coco --source-uri coco.json --output-uri inventory"""

    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **ListedPathsConfig.option_groups,
        **EventConfig.option_groups,
        **LabelCheckConfig.option_groups,
    }

    source_uri: str = Field(min_length=1)
    """The JSON file."""


class CamtrapDpInventoryConfig(EventConfig, ListedPathsConfig, LabelCheckConfig, InventoryConfig):
    """Read a Camtrap DP package, version 0.1 to 1.0.2."""

    example: ClassVar[str] = """\
ctc create-inventory camtrap-dp --source-uri package.zip \\
    --output-uri inventory"""

    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **ListedPathsConfig.option_groups,
        **EventConfig.option_groups,
        **LabelCheckConfig.option_groups,
    }

    source_uri: str = Field(min_length=1)
    """The package: its folder, its datapackage.json, or one zip file."""
    machine_labels: MachineLabels = "where-unlabelled"
    """Labels that a model gave (classificationMethod machine): used only where no person has
    labelled the image, always kept beside those of people, or alone."""


class MegadetectorInventoryConfig(InventoryConfig):
    """Add the boxes of a MegaDetector result file to an inventory, by file name."""

    example: ClassVar[str] = """\
ctc create-inventory megadetector --source-uri detections.json \\
    --inventory-uri inventory --output-uri inventory-with-boxes"""

    source_uri: str = Field(min_length=1)
    """The MegaDetector JSON file."""
    inventory_uri: str = Field(min_length=1)
    """The inventory that the boxes are added to."""


class JsonInventoryConfig(ListedPathsConfig, LabelCheckConfig, InventoryConfig):
    """Read an inventory JSON file of camera-trap-classifier (2019)."""

    example: ClassVar[str] = """\
ctc create-inventory json --source-uri old.json --output-uri inventory"""

    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **ListedPathsConfig.option_groups,
        **LabelCheckConfig.option_groups,
    }

    source_uri: str = Field(min_length=1)
    """The JSON file."""


TimedInventoryConfig: TypeAlias = (
    CsvInventoryConfig | ImagesInventoryConfig | CocoInventoryConfig | CamtrapDpInventoryConfig
)
"""The sources whose images have times."""

LabelledInventoryConfig: TypeAlias = TimedInventoryConfig | DirInventoryConfig | JsonInventoryConfig
"""The sources that may have labels of their own."""
