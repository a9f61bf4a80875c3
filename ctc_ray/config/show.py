"""Configuration of `ctc show`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ctc_ray.config.base import Config, Shown

_MAX_SHEET_PIXELS = 200_000_000  # 600 MB while it is drawn


class ShowConfig(Config):
    """Report what a folder contains: counts, classes, failures, inputs and configuration."""

    example: ClassVar[str] = "ctc show dataset --contact-sheet sheet.png"
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Contact sheet": ("contact_sheet", "head", "image_root_uri", "images", "columns", "tile"),
    }

    uri: str = Field(min_length=1)
    """Folder written by any ctc command, finished or not."""
    failures: bool = False
    """List the first 20 images that failed."""
    contact_sheet: Annotated[str | None, Shown("no contact sheet", value="FILE.png")] = None
    """PNG file to write, with a sample of the images and their labels or predictions. The same
    folder gives the same sample."""
    head: Annotated[str | None, Shown("the first head")] = None
    """Used with --contact-sheet: head whose classes are shown."""
    image_root_uri: Annotated[str | None, Shown("the folder used to make the data")] = None
    """Used with --contact-sheet: folder that image paths are relative to. Not needed for a dataset,
    which contains its images."""
    images: int = Field(48, gt=0)
    """Used with --contact-sheet: largest number of images, spread over classes and splits."""
    columns: int = Field(8, gt=0)
    """Used with --contact-sheet: number of images side by side."""
    tile: int = Field(160, ge=32, le=2048)
    """Used with --contact-sheet: width and height of one image in pixels."""

    @field_validator("contact_sheet")
    @classmethod
    def _is_png(cls, value: str | None) -> str | None:
        if value is not None and not value.lower().endswith(".png"):
            raise ValueError("a contact sheet is a PNG image; use a file name that ends in .png")
        return value

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        rows = -(-self.images // self.columns)
        if rows * self.columns * self.tile**2 > _MAX_SHEET_PIXELS:
            raise ValueError(
                f"a contact sheet of {self.images} images in {self.columns} columns of {self.tile} "
                "pixels is too large; use fewer --images or --columns, or a smaller --tile"
            )
        return self
