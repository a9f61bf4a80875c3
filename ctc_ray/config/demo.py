"""Configuration of `ctc demo`."""

from typing import Annotated, ClassVar

from pydantic import Field

from ctc_ray.config.base import Shown, StageConfig


class DemoConfig(StageConfig):
    """Run the whole pipeline in a few minutes, on drawn scenes or on your own class folders."""

    example: ClassVar[str] = "ctc demo --images photos"

    output_uri: str = Field("ctc-demo", min_length=1)
    """Folder for all results of the demo."""
    images: Annotated[str | None, Shown("drawn scenes", value="FOLDER")] = None
    """Your own images in class folders, FOLDER/CLASS/IMAGE."""
    max_epochs: int = Field(12, gt=0)
    """Number of training epochs."""
    image_size: int = Field(64, ge=16)
    """Width and height of the network's input in pixels."""
    seed: int = Field(0, ge=0)
    """Seed of the scenes and of the training."""
