"""Settings of every stage that reads image files."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from ctc_ray.config.base import Shown, StageConfig
from ctc_ray.config.choices import TruncatedPolicy


class ReadingConfig(StageConfig):
    """How image files are read, and what happens to files that cannot be read."""

    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        "max_failure_fraction",
        "threads_per_task",
    }
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Reading images": ("image_root_uri", "allow_scheme", "max_pixels", "truncated"),
    }

    image_root_uri: Annotated[str | None, Shown("paths as they are")] = None
    """Folder that the image paths of the inventory or csv are relative to."""
    allow_scheme: tuple[str, ...] = ()
    """Schemes of image URIs that may be read beside that of --image-root-uri, for example s3. Other
    URIs, and paths with "..", become `not_allowed` failures."""
    max_pixels: int = Field(100_000_000, gt=0)
    """An image with more pixels becomes a `too_large` failure; it is not decoded."""
    truncated: TruncatedPolicy = "fail"
    """Images whose file ends early. fail: record a `truncated` failure. keep: use the image; the
    missing part is gray."""
    max_failure_fraction: float = Field(0.1, ge=0, le=1)
    """Checked when all images are done: end with an error if more than this share failed. Results
    are kept: the same command with a larger value finishes, --overwrite reads all images again."""
    threads_per_task: Annotated[int | None, Shown("4, or 16 from an object store")] = Field(
        None, gt=0
    )
    """How many image files a worker process reads, and holds in memory, at the same time."""
