"""Configuration of `ctc demo`."""

from pydantic import Field

from ctc_ray.config.base import StageConfig


class DemoConfig(StageConfig):
    """The whole pipeline in a few minutes, on drawn scenes or on your own class folders."""

    output_uri: str = Field("ctc-demo", min_length=1)
    """Folder for everything the demo makes."""
    images: str | None = None
    """Your own class folders (ROOT/<class>/<image>) instead of drawn scenes."""
    max_epochs: int = Field(12, gt=0)
    """Epochs of training."""
    image_size: int = Field(64, ge=16)
    """Side of the network's input in pixels."""
    seed: int = Field(0, ge=0)
    """Seed of the scenes and of training."""
