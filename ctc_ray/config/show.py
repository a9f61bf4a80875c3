"""Configuration of `ctc show`."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from ctc_ray.config.base import Config

_MAX_SHEET_PIXELS = 200_000_000  # 600 MB while it is drawn


class ShowConfig(Config):
    """Tell what a folder holds: counts, classes, failures, inputs, configuration, images."""

    uri: str = Field(min_length=1)
    """Folder written by any command, finished or not."""
    failures: bool = False
    """List the first 20 images that failed, too."""
    contact_sheet: str | None = None
    """A .png file, local or at a URI, for a sample of the images with their labels or predictions;
    the same folder gives the same sample."""
    head: str | None = None
    """Of contact_sheet: the head whose classes are shown; the default is the first."""
    image_root_uri: str | None = None
    """Of contact_sheet: folder that image paths are relative to; the default is the one that the
    folder was made with. Not used for a dataset, which holds its images."""
    images: int = Field(48, gt=0)
    """Of contact_sheet: images at most, spread over classes and splits."""
    columns: int = Field(8, gt=0)
    """Of contact_sheet: images side by side."""
    tile: int = Field(160, ge=32, le=2048)
    """Of contact_sheet: side of the square that holds an image, in pixels."""

    @field_validator("contact_sheet")
    @classmethod
    def _is_png(cls, value: str | None) -> str | None:
        if value is not None and not value.lower().endswith(".png"):
            raise ValueError("a contact sheet is a PNG; name a file that ends in .png")
        return value

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        rows = -(-self.images // self.columns)
        if rows * self.columns * self.tile**2 > _MAX_SHEET_PIXELS:
            raise ValueError(
                f"{self.images} images in {self.columns} columns of {self.tile} pixels are too "
                "large a contact sheet; choose fewer images or columns, or smaller tiles"
            )
        return self
