"""Configuration of `ctc create-dataset`."""

import math
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ctc_ray.config.base import Config, StageConfig

DEFAULT_FRACTIONS = {"train": 0.9, "val": 0.05, "test": 0.05}  # the original's

TruncatedPolicy = Literal["fail", "keep"]


class ResizeConfig(Config):
    """How images are stored in the shards."""

    smallest_side: int = Field(400, gt=0)
    """Length of the smaller side in pixels; images are never enlarged."""
    quality: int = Field(75, ge=1, le=100)
    """JPEG quality."""
    reencode_small: bool = False
    """Encode also the JPEGs that need no resizing and no turning; otherwise these keep their pixels
    bit for bit and lose their metadata."""


class SplitConfig(Config):
    """Which images are trained on, chosen by, and tested with."""

    by: str = Field("event", pattern=r"^(event|location|meta:.+)$")
    """event (the original's hash, bit for bit), location (no place is in two splits), or
    meta:FIELD (the field's value is the name of the split)."""
    fractions: dict[str, float] = DEFAULT_FRACTIONS
    """Share of each split; they add up to 1. Not used by meta:FIELD."""
    salt: str = ""
    """Changes the assignment of locations as a whole, for cross-validation."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if any(not 0 <= share <= 1 for share in self.fractions.values()):
            raise ValueError("split.fractions must lie between 0 and 1")
        total = math.fsum(self.fractions.values())
        if abs(total - 1) > 1e-9:
            raise ValueError(f"split.fractions add up to {total:g}, not to 1")
        return self


class CreateDatasetConfig(StageConfig):
    """Decode and resize the images of an inventory into Parquet shards, split for training."""

    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        "max_failure_fraction",
        "threads_per_task",
    }

    inventory_uri: str = Field(min_length=1)
    """Folder written by `ctc create-inventory`."""
    heads: tuple[str, ...] = Field(min_length=1)
    """Heads to keep as labels."""
    image_root_uri: str | None = None
    """Folder that the inventory's image paths are relative to."""
    resize: ResizeConfig = ResizeConfig()
    """How images are stored."""
    split: SplitConfig = SplitConfig()
    """Which images are trained on, chosen by, and tested with."""
    observations: Literal["error", "drop", "first"] = "error"
    """Events with several different observations of the heads: stop, leave them out, or take the
    first."""
    max_pixels: int = Field(100_000_000, gt=0)
    """Pixels above which an image is a `too_large` failure; checked before it is decoded."""
    truncated: TruncatedPolicy = "fail"
    """An image of which a part is lost: a `truncated` failure, or kept with the lost part gray."""
    images_per_unit: int = Field(1000, gt=0)
    """Images per shard, about: events are never divided."""
    max_failure_fraction: float = Field(0.1, ge=0, le=1)
    """Share of images that may fail before the stage ends in an error; done work is kept."""
    threads_per_task: int = Field(4, gt=0)
    """Files that a task reads ahead from the image root at once."""
