"""Configuration of `ctc tune`."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from ctc_ray.config.base import Shown, StageConfig
from ctc_ray.config.choices import Direction
from ctc_ray.config.training import direction_of


class TuneConfig(StageConfig):
    """Search for the training settings that give the best model."""

    example: ClassVar[str] = "ctc tune --config tune.yaml"
    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        "concurrent_trials",
    }

    train: dict[str, Any]
    """Settings of `ctc train`, without output_uri. Best given in the --config file."""
    space: dict[str, Any] = Field(min_length=1)
    """Settings to search and their values: {choice: […]}, {grid: […]}, {uniform: [low, high]},
    {loguniform: [low, high]} or {randint: [low, high]}. Best given in the --config file."""
    metric: Annotated[str, Shown(value="METRIC")] = "val_loss"
    """Metric that compares trials: val_loss, or for example val_accuracy_species. The smallest loss
    is best; for other metrics the largest value."""
    trials: int = Field(10, gt=0)
    """Number of trials. With grid: number of times that the whole grid is tried."""
    concurrent_trials: int = Field(1, gt=0)
    """Number of trials at the same time."""
    grace_epochs: int = Field(1, gt=0)
    """Epochs that every trial gets before it can be stopped (ASHA)."""
    reduction_factor: int = Field(4, ge=2)
    """At each stage of the search, one trial in this many continues (ASHA)."""
    seed: int = Field(0, ge=0)
    """Seed of the search."""

    @property
    def mode(self) -> Direction:
        """Whether the smallest or the largest metric is best."""
        return direction_of(self.metric)
