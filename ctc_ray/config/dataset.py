"""Configuration of `ctc create-dataset`."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_serializer, field_validator, model_validator

from ctc_ray.config.base import Config, Shown
from ctc_ray.config.choices import ObservationRule, RarestClass, UndatedRule
from ctc_ray.config.image_reading import ReadingConfig

DEFAULT_FRACTIONS = {"train": 0.9, "val": 0.05, "test": 0.05}  # the original's


def fold_names(n_folds: int) -> tuple[str, ...]:
    """The splits of a cross-validation."""
    return tuple(f"fold-{number}" for number in range(n_folds))


class ResizeConfig(Config):
    """How images are stored in the dataset."""

    smallest_side: int = Field(400, gt=0)
    """Length of the shorter side in pixels. Smaller images are not enlarged."""
    quality: int = Field(75, ge=1, le=100)
    """JPEG quality, from 1 to 100."""
    reencode_small: bool = False
    """Encode small, upright JPEGs again too. Otherwise they keep their pixels exactly and lose only
    their metadata."""


class SplitConfig(Config):
    """How images are divided into training, validation and test splits."""

    by: Annotated[str, Shown("event, with --split.folds location", "RULE")] = "event"
    """event: by a hash of the event id, as camera-trap-classifier does. location: no location is in
    two splits; shares and classes are as balanced as possible. location-hash: by a hash of the
    location, so new images never move a location to another split. time: the earliest days go to
    the first split; no day is in two splits. meta:FIELD: the value of a metadata field is the name
    of the split."""
    fractions: dict[str, float] = DEFAULT_FRACTIONS
    """Share of each split; the shares add up to 1. The order matters: the first split gets the
    lowest hashes or the earliest days. Not used with --split.by meta:FIELD."""
    folds: Annotated[int | None, Field(ge=2), Shown("none")] = None
    """Make this many splits fold-0, fold-1 and so on of equal shares, for `ctc tune --folds`: of
    all images, or of what --split.fractions leaves, for example --split.fractions.test 0.2."""
    salt: str = ""
    """Text added to each id before it is hashed. Another text gives another split, for example for
    cross-validation. The empty text gives the split of camera-trap-classifier."""
    undated: UndatedRule = "error"
    """Used with --split.by time: capture events without a time. error: stop. train: put them into
    the split train. drop: leave them out."""

    @model_validator(mode="before")
    @classmethod
    def _with_folds(cls, values: Any) -> Any:
        """Puts the folds into `fractions`, which say all that there is about the splits."""
        n_folds = values.get("folds") if isinstance(values, Mapping) else None
        if n_folds is None or not str(n_folds).isdecimal() or int(n_folds) < 2:
            return values
        names, given = fold_names(int(n_folds)), cls._from_pairs(values.get("fractions", {}))
        try:
            others = {name: float(share) for name, share in given.items() if name not in names}
        except (AttributeError, TypeError, ValueError):
            return values  # no numbers by names, which the check of the field says
        share = (1 - math.fsum(others.values())) / len(names)
        fractions = {**dict.fromkeys(names, share), **others}
        return {"by": "location", **values, "fractions": fractions}

    @field_validator("by")
    @classmethod
    def _is_a_known_way(cls, value: str) -> str:
        if not re.fullmatch(r"event|location|location-hash|time|meta:.+", value):
            raise ValueError("expected event, location, location-hash, time or meta:FIELD")
        return value

    @field_validator("fractions", mode="before")
    @classmethod
    def _from_pairs(cls, value: Any) -> Any:
        is_pairs = isinstance(value, list | tuple) and all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in value
        )
        return {str(name): share for name, share in value} if is_pairs else value

    @field_serializer("fractions", when_used="json")
    def _as_pairs(self, fractions: dict[str, float]) -> list[tuple[str, float]]:
        # the keys of a JSON object have no order, and in another order events change their split
        return list(fractions.items())

    @model_validator(mode="after")
    def _folds_have_images(self) -> Self:
        if self.folds is not None and self.by.startswith("meta:"):
            raise ValueError("give split.folds or split.by meta:FIELD, which names the splits")
        if self.folds is not None and not self.fractions["fold-0"] > 0:
            raise ValueError("split.fractions leave nothing for split.folds")
        return self

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if any(not 0 <= share <= 1 for share in self.fractions.values()):
            raise ValueError("split.fractions must be between 0 and 1")
        total = math.fsum(self.fractions.values())
        if abs(total - 1) > 1e-9:
            raise ValueError(f"split.fractions add up to {total:g}, not to 1")
        return self


class FilterConfig(Config):
    """Which capture events are left out."""

    keep: Annotated[tuple[str, ...], Shown(value="HEAD=CLASS")] = ()
    """Keep only events with at least one of these labels."""
    remove: Annotated[tuple[str, ...], Shown(value="HEAD=CLASS")] = ()
    """Leave out events with any of these labels."""
    allow_unmatched: bool = False
    """Go on if a class of --filter.keep or --filter.remove does not occur. Otherwise that is an
    error, except with --append."""
    drop_missing_labels: bool = False
    """Leave out events that lack a label of one of the heads."""
    min_events_per_class: int = Field(0, ge=0)
    """Leave out events of classes with fewer events."""
    min_images_per_class: int = Field(0, ge=0)
    """Leave out events of classes with fewer images."""

    @field_validator("keep", "remove")
    @classmethod
    def _name_a_class(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for item in value:
            head, equals, name = item.partition("=")
            if not (head and equals and name):
                raise ValueError(f"{item!r} is not written as head=class")
        return value


class BalanceConfig(Config):
    """How many capture events of frequent classes are kept."""

    head: Annotated[str | None, Shown("no balancing")] = None
    """Head whose classes are balanced."""
    max_events_per_class: Annotated[int, Field(gt=0)] | RarestClass = "rarest"
    """Largest number of capture events per class and split. rarest: the number of events of the
    rarest class in the split."""
    splits: tuple[str, ...] = ("train",)
    """Splits that are balanced."""
    salt: str = ""
    """Another text chooses other events."""


class CreateDatasetConfig(ReadingConfig):
    """Resize the images of an inventory and write them to Parquet shards, split for training."""

    example: ClassVar[str] = """\
ctc create-dataset --inventory-uri inventory --output-uri dataset \\
    --heads species count --split.by location"""
    operational: ClassVar[frozenset[str]] = ReadingConfig.operational | {"append", "check"}
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Labels": ("mapping_uri", "observations"),
        **ReadingConfig.option_groups,
    }

    inventory_uri: str = Field(min_length=1)
    """Folder written by `ctc create-inventory`."""
    heads: Annotated[tuple[str, ...], Shown("only for an inventory without heads")] = ()
    """Heads whose labels are stored, for example species count."""
    append: bool = False
    """Add the new events of this inventory to the finished dataset in --output-uri. With
    --overwrite, an unfinished append is deleted first; the finished dataset is kept."""
    resize: ResizeConfig = ResizeConfig()
    """How images are stored in the dataset."""
    split: SplitConfig = SplitConfig()
    """How images are divided into training, validation and test splits."""
    mapping_uri: Annotated[str | None, Shown("no renaming")] = None
    """File that renames or merges classes before anything else: a csv with the columns
    head,from,to, or YAML of the form head: {from: to}. An empty `to`, or -1, means no label."""
    observations: ObservationRule = "error"
    """Capture events with several different observations. error: stop. drop: leave them out. first:
    use the first observation. most-frequent: use the one given most often."""
    filter: FilterConfig = FilterConfig()
    """Which capture events are left out."""
    balance: BalanceConfig = BalanceConfig()
    """How many capture events of frequent classes are kept."""
    images_per_unit: int = Field(1000, gt=0)
    """Approximate number of images per shard, which is also one step of the work: a stopped command
    loses at most one per worker. A capture event is never divided. Stays as it is on resuming."""
    check: Annotated[int | None, Field(gt=0), Shown("off")] = None
    """Try this many images, report time, size and failures to expect for all, and write nothing."""
