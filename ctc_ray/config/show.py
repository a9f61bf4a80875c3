"""Configuration of `ctc show`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ctc_ray.config.base import Config, Shown
from ctc_ray.config.choices import Preset
from ctc_ray.config.model import InputConfig
from ctc_ray.config.training import AugmentConfig

MAX_SHEET_PIXELS = 200_000_000  # 600 MB while it is drawn
_OF_TRAINING = ("config", "preset", "train_splits", "seed", "model", "augment")
_OF_AUGMENTED = ("rows", "epochs", *_OF_TRAINING)


class ShowConfig(Config):
    """Report what a folder contains: counts, classes, failures, inputs and configuration."""

    example: ClassVar[str] = "ctc show dataset --contact-sheet sheet.png"
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Contact sheet": ("contact_sheet", "head", "image_root_uri", "images", "columns", "tile"),
        "What training sees": (
            *("augmented", "rows", "epochs"),
            *("config", "preset", "train_splits", "seed"),
        ),
    }

    uri: str = Field(min_length=1)
    """Folder written by any ctc command, finished or not."""
    failures: bool = False
    """List the first 20 images that failed."""
    contact_sheet: Annotated[str | None, Shown("no contact sheet", value="FILE.png")] = None
    """PNG file to write, with a sample of the images and their labels or predictions. The same
    folder gives the same sample."""
    head: Annotated[str | None, Shown("the first head")] = None
    """Used with --contact-sheet and --augmented: head whose classes are shown."""
    image_root_uri: Annotated[str | None, Shown("the folder used to make the data")] = None
    """Used with --contact-sheet: folder that image paths are relative to. Not needed for a dataset,
    which contains its images."""
    images: int = Field(48, gt=0)
    """Used with --contact-sheet: largest number of images, spread over classes and splits."""
    columns: int = Field(8, gt=0)
    """Used with --contact-sheet: number of images side by side."""
    tile: int = Field(160, ge=32, le=2048)
    """Used with --contact-sheet: width and height of one image in pixels."""
    augmented: Annotated[str | None, Shown("no such sheet", value="FILE.png")] = None
    """PNG file to write, with training images of a dataset, one per row: first as validation and
    prediction see it, then as `ctc train` sees it in each of its first epochs, after the random
    changes that --config, --preset and --augment ask for. Pixels are those of the network's input.
    mixup and cutmix are not shown."""
    rows: int = Field(8, gt=0)
    """Used with --augmented: number of images, spread over classes; --seed chooses them."""
    epochs: int = Field(6, gt=0)
    """Used with --augmented: number of epochs, side by side."""
    config: Annotated[str | None, Shown("the defaults of ctc train", value="FILE")] = None
    """Used with --augmented: YAML file with settings of `ctc train`. Options override the file."""
    preset: Preset = "default"
    """Used with --augmented: as in `ctc train`."""
    train_splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("train",)
    """Used with --augmented: as in `ctc train`."""
    seed: int = Field(0, ge=0)
    """Used with --augmented: as in `ctc train`."""
    model: InputConfig = InputConfig()
    """Used with --augmented: as in `ctc train`."""
    augment: AugmentConfig = AugmentConfig()
    """Used with --augmented: random changes, as in `ctc train`."""

    @field_validator("contact_sheet", "augmented")
    @classmethod
    def _is_png(cls, value: str | None) -> str | None:
        if value is not None and not value.lower().endswith(".png"):
            raise ValueError("a contact sheet is a PNG image; use a file name that ends in .png")
        return value

    @model_validator(mode="after")
    def _augmented_is_wanted(self) -> Self:
        given = [name for name in _OF_AUGMENTED if name in self.model_fields_set]
        if given and self.augmented is None:
            raise ValueError(f"{given[0]} needs augmented, the PNG file to write")
        return self

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        rows = -(-self.images // self.columns)
        if rows * self.columns * self.tile**2 > MAX_SHEET_PIXELS:
            raise ValueError(
                f"a contact sheet of {self.images} images in {self.columns} columns of {self.tile} "
                "pixels is too large; use fewer --images or --columns, or a smaller --tile"
            )
        return self

    def given_to_train(self) -> dict[str, Any]:
        """The settings of `ctc train` that were given, without those of the file."""
        names = set(_OF_TRAINING) - {"config"}
        return self.model_dump(include=names, exclude_unset=True)
