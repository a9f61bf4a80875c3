"""How capture events are made, and how a folder of images is read."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from ctc_ray.config.base import Config, Shown
from ctc_ray.config.choices import TimeSource


class EventConfig(Config):
    """How capture events are made where the source does not define them."""

    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Capture events, where the source does not define them": (
            "event_gap_s",
            "max_images_per_event",
            "clock_corrections_uri",
        ),
    }

    event_gap_s: float = Field(60, ge=0)
    """Longest time in seconds between two neighbouring images of one event, at one deployment."""
    max_images_per_event: Annotated[int | None, Field(gt=0), Shown("no limit")] = None
    """Divide events that have more images than this."""
    clock_corrections_uri: Annotated[str | None, Shown("clocks are right")] = None
    """A csv that corrects camera clocks before events are made. Columns: deployment or
    location; from and to (optional), the period on the camera's clock; shift, e.g. -1:00 or +365d,
    or wrong and right, a time that the camera wrote and the time that it was."""


class TreeConfig(EventConfig):
    """How a folder of images is read."""

    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Folders and times": ("layout", "allow_unmatched", "time_from", "camera_events"),
        **EventConfig.option_groups,
    }

    layout: Annotated[str | None, Shown("folders mean nothing", value="PATTERN")] = None
    """Meaning of the folders below the root, for example "{location}/{deployment}", or
    "{location}/{head:species}" for folders that are labels. A name without braces must match
    exactly; * matches any one folder."""
    allow_unmatched: bool = False
    """Go on if no file fits the layout. Otherwise that is an error."""
    time_from: tuple[TimeSource, ...] = ("original", "digitized", "maker-note")
    """Where the capture time of a file is read; the first that is there counts. original, digitized
    and modify-date: DateTimeOriginal, DateTimeDigitized and DateTime of EXIF. maker-note: what
    Reconyx HyperFire cameras write. file-name: for example IMG_20190601_100000.JPG."""
    camera_events: bool = True
    """Use the event numbers that Reconyx HyperFire cameras write. Otherwise their events are made
    by gaps in time, too."""
