"""Typed records of a manifest: all that code reads from one.

Facts and tables for people are in `Manifest.summary`, which no code reads.
"""

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A part of a manifest; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RowGroupRecord(Record):
    """Counts of one Parquet row group of a shard."""

    n_images: int
    n_events: int
    n_usable_events: int
    """Capture events with at least one image that did not fail."""
    n_usable_images: int


class ShardRecord(Record):
    """A shard of a dataset."""

    path: str
    """Below the dataset's folder."""
    split: str
    n_images: int
    n_failed: int
    row_groups: list[RowGroupRecord]


class PixelSums(Record):
    """How bright the usable images of a split are, in numbers that add up in any order."""

    n_images: int
    sums: tuple[float, float, float, float, float, float]
    """Over the images: of the means of red, green and blue (of values from 0 to 255), then of the
    means of their squares. Multiples of 1/65536, so they are exact."""


class PixelRecord(Record):
    """By what the pixels of a training are normalised, where its weights begin at random."""

    n_images: int
    mean: tuple[float, float, float]
    """Per channel, of pixels in [0, 1]; each image counts the same."""
    std: tuple[float, float, float]
    """Standard deviation, likewise; 1 where it is 0, because pixels are divided by it."""

    @classmethod
    def of_moments(
        cls, n_images: int, means: Sequence[float], squares: Sequence[float]
    ) -> "PixelRecord":
        """Rounded to 4 decimals, as in camera-trap-classifier.

        Args:
            means: per channel, of values from 0 to 255.
            squares: per channel, the mean of the squares of these values.
        """
        std = [
            math.sqrt(max(0.0, square - mean * mean))
            for mean, square in zip(means, squares, strict=True)
        ]
        red, green, blue = (round(value / 255, 4) for value in means)
        red_std, green_std, blue_std = (round(value / 255, 4) or 1.0 for value in std)
        return cls(n_images=n_images, mean=(red, green, blue), std=(red_std, green_std, blue_std))


class SplitRecord(Record):
    """Counts of one split of a dataset."""

    split: str
    images: int
    events: int
    failed: int


class AppendRecord(Record):
    """An inventory that a finished dataset has grown by."""

    inventory: str
    images_in_inventory: int
    images: int
    """Images of it that the dataset has gained."""
    left_out: list[dict[str, Any]]
    """Step of the selection, with the events and images that it left out; for people."""


class ModelRecord(Record):
    """The model that has made predictions."""

    name: str
    """The name of its folder."""
    backbone: str
    fingerprint: str
    """SHA-256 of all that determines its answers, 64 hex digits."""


class BundleRecord(Record):
    """What a program needs to know to feed a model."""

    image_size: int
    """Side of the square input, in pixels."""
    keep_aspect: bool
    """Whether the centre is cut out; otherwise the whole image is squeezed."""
    is_stack: bool = False
    """Whether an input is up to three gray images of a capture event, as the channels of one."""
