"""Configuration of `ctc create-dataset`."""

import math
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_serializer, field_validator, model_validator

from ctc_ray.config.base import Config, StageConfig
from ctc_ray.config.choices import ObservationRule, RarestClass, TruncatedPolicy, UndatedRule

DEFAULT_FRACTIONS = {"train": 0.9, "val": 0.05, "test": 0.05}  # the original's


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

    by: str = Field("event", pattern=r"^(event|location|location-hash|time|meta:.+)$")
    """event (the original's hash, bit for bit), location (no place is in two splits, shares and
    classes as even as that allows), location-hash (the same by a hash alone: new images never move
    a location), time (the earliest days first, no day in two splits), or meta:FIELD (the field's
    value is the name of the split)."""
    fractions: dict[str, float] = DEFAULT_FRACTIONS
    """Share of each split, in the order in which they take their part of the hashes or of the days;
    they add up to 1. Not used by meta:FIELD."""
    salt: str = ""
    """Changes a split by event or location as a whole, for cross-validation; an event's is the
    original's without."""
    undated: UndatedRule = "error"
    """Of time only, events without a capture time: stop, put them into train, or leave them out."""

    @field_validator("fractions", mode="before")
    @classmethod
    def _from_pairs(cls, value: Any) -> Any:
        is_pairs = isinstance(value, list | tuple) and all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in value
        )
        return {str(name): share for name, share in value} if is_pairs else value

    @field_serializer("fractions", when_used="json")
    def _as_pairs(self, fractions: dict[str, float]) -> list[tuple[str, float]]:
        # the keys of a JSON object have no order, and by another one the events go elsewhere
        return list(fractions.items())

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if any(not 0 <= share <= 1 for share in self.fractions.values()):
            raise ValueError("split.fractions must lie between 0 and 1")
        total = math.fsum(self.fractions.values())
        if abs(total - 1) > 1e-9:
            raise ValueError(f"split.fractions add up to {total:g}, not to 1")
        return self


class FilterConfig(Config):
    """Which capture events are left out."""

    keep: tuple[str, ...] = ()
    """Only events with one of these labels, as head=class."""
    remove: tuple[str, ...] = ()
    """No events with any of these labels, as head=class."""
    drop_missing_labels: bool = False
    """Leave out events that lack a label of any of the heads."""
    min_events_per_class: int = Field(0, ge=0)
    """Leave out the events of classes that have fewer."""
    min_images_per_class: int = Field(0, ge=0)
    """Leave out the events of classes that have fewer images, however many events these are of."""

    @field_validator("keep", "remove")
    @classmethod
    def _name_a_class(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            head, equals, name = item.partition("=")
            if not (head and equals and name):
                raise ValueError(f"{item!r} is not written as head=class")
        return value


class BalanceConfig(Config):
    """How frequent classes are sampled down, event by event."""

    head: str | None = None
    """Head whose classes are balanced; none: nothing is left out."""
    max_events_per_class: Annotated[int, Field(gt=0)] | RarestClass = "rarest"
    """Capture events of a class that stay in a split; rarest: as many as its rarest class has."""
    splits: tuple[str, ...] = ("train",)
    """Splits that are balanced."""
    salt: str = ""
    """Changes which events stay."""


class CreateDatasetConfig(StageConfig):
    """Decode and resize the images of an inventory into Parquet shards, split for training."""

    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        "append",
        "max_failure_fraction",
        "threads_per_task",
        "check",
    }

    inventory_uri: str = Field(min_length=1)
    """Folder written by `ctc create-inventory`."""
    heads: tuple[str, ...] = Field(min_length=1)
    """Heads to keep as labels."""
    append: bool = False
    """Add the new events of this inventory to the finished dataset in output_uri. With overwrite,
    what another append has left unfinished is deleted first, and nothing else."""
    image_root_uri: str | None = None
    """Folder that the inventory's image paths are relative to."""
    resize: ResizeConfig = ResizeConfig()
    """How images are stored."""
    split: SplitConfig = SplitConfig()
    """Which images are trained on, chosen by, and tested with."""
    mapping_uri: str | None = None
    """Classes to rename or merge before all else: a csv head,from,to or a YAML head: {from: to}; a
    `to` that is empty or -1 is a missing label."""
    observations: ObservationRule = "error"
    """Events with several different observations of the heads: stop, leave them out, or take the
    first, or the one that was given most often."""
    filter: FilterConfig = FilterConfig()
    """Which capture events are left out."""
    balance: BalanceConfig = BalanceConfig()
    """How frequent classes are sampled down."""
    max_pixels: int = Field(100_000_000, gt=0)
    """Pixels above which an image is a `too_large` failure; checked before it is decoded."""
    truncated: TruncatedPolicy = "fail"
    """An image of which a part is lost: a `truncated` failure, or kept with the lost part gray."""
    images_per_unit: int = Field(1000, gt=0)
    """Images per shard, about: events are never divided."""
    max_failure_fraction: float = Field(0.1, ge=0, le=1)
    """Share of images that may fail before the stage ends in an error; done work is kept."""
    threads_per_task: int | None = Field(None, gt=0)
    """Files that a task reads at once, and holds, before they are decoded; the default is 4, or 16
    from an object store."""
    check: int | None = Field(None, gt=0)
    """Try this many images of the plan, tell what the whole would cost and lose, and write
    nothing."""
