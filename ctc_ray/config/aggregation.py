"""Configuration of `ctc aggregate`, and how the images of an event are combined."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from ctc_ray.config.base import Config, Shown, StageConfig
from ctc_ray.config.choices import Aggregation
from ctc_ray.config.keys import option_name

_OTHER_EVENTS = ("events_uri", "event_gap_s", "by")


class CombiningConfig(Config):
    """How the predictions of a capture event follow from those of its images."""

    aggregation: Aggregation = "mean"
    """How the probabilities of a capture event are computed from those of its images. mean, max,
    min, geometric-mean: of each class by itself. mean-logit: softmax of the mean logarithm. vote:
    share of the images that have this class as their best."""
    renormalize: bool = False
    """Divide the probabilities of an event by their sum, so that they add up to 1."""
    top_k: Annotated[int | None, Field(gt=0), Shown("all classes")] = None
    """Keep only so many classes of each event, the best first, instead of all probabilities."""


class AggregateConfig(CombiningConfig, StageConfig):
    """Combine finished predictions per image to predictions per event; nothing is scored again."""

    example: ClassVar[str] = """\
ctc aggregate --predictions-uri predictions --output-uri per-day \\
    --by location day --aggregation mean-logit"""
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Other events (at most one)": _OTHER_EVENTS
    }

    predictions_uri: str = Field(min_length=1)
    """Folder written by `ctc predict`."""
    events_uri: Annotated[str | None, Shown("the events of the predictions")] = None
    """Folder written by `ctc create-inventory` that says which images are an event. Images are
    found by image_id, else by image_uri."""
    event_gap_s: Annotated[float | None, Field(ge=0), Shown("the events of the predictions")] = None
    """Make events by gaps in time: longest time in seconds between two neighbouring images of one
    event, at one deployment."""
    by: Annotated[tuple[str, ...], Shown("the events of the predictions")] = ()
    """Make one event of all images with equal values of these fields: location, deployment, day,
    or meta_FIELD for a metadata field."""
    images_per_unit: int = Field(100_000, gt=0)
    """Approximate number of images per file of event predictions, which is also one step of the
    work. An event is never divided."""

    @model_validator(mode="after")
    def _one_kind_of_events(self) -> Self:
        given = [name for name in _OTHER_EVENTS if getattr(self, name) not in (None, ())]
        if len(given) > 1:
            raise ValueError(
                f"give at most one of {', '.join(map(option_name, _OTHER_EVENTS))}; "
                f"given: {', '.join(map(option_name, given))}"
            )
        return self
