"""Camera-trap image classification at the scale of whole conservation programmes, on Ray.

The names in `__all__` are public. They are imported when they are first used: `import ctc_ray`
itself imports neither Ray nor torch nor Arrow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctc_ray.api import (
        LoadedBundle,
        aggregate,
        create_dataset,
        create_inventory,
        demo,
        export,
        load_bundle,
        open_dataset,
        predict,
        read_manifest,
        show,
        train,
        tune,
    )
    from ctc_ray.config.aggregation import AggregateConfig
    from ctc_ray.config.dataset import (
        BalanceConfig,
        CreateDatasetConfig,
        FilterConfig,
        ResizeConfig,
        SplitConfig,
    )
    from ctc_ray.config.demo import DemoConfig
    from ctc_ray.config.inventory import (
        CamtrapDpInventoryConfig,
        CocoInventoryConfig,
        CsvInventoryConfig,
        DirInventoryConfig,
        ImagesInventoryConfig,
        JsonInventoryConfig,
        MegadetectorInventoryConfig,
    )
    from ctc_ray.config.model import ModelConfig
    from ctc_ray.config.optimization import OptimizerConfig, ScheduleConfig
    from ctc_ray.config.prediction import ExportConfig, PredictConfig
    from ctc_ray.config.show import ShowConfig
    from ctc_ray.config.training import AugmentConfig, TrainConfig
    from ctc_ray.config.tuning import TuneConfig
    from ctc_ray.console.summaries import Summary
    from ctc_ray.errors import (
        ConfigError,
        CtcError,
        IncompleteDataError,
        LabelError,
        OutputInUseError,
        SchemaError,
        TooManyFailuresError,
        UsageError,
    )
    from ctc_ray.predictions.by_head import HeadPredictions, Predictions
    from ctc_ray.runs.manifest import Manifest
    from ctc_ray.schemas import Failure

__version__ = "0.1.0"

__all__ = [
    "AggregateConfig",
    "AugmentConfig",
    "BalanceConfig",
    "CamtrapDpInventoryConfig",
    "CocoInventoryConfig",
    "ConfigError",
    "CreateDatasetConfig",
    "CsvInventoryConfig",
    "CtcError",
    "DemoConfig",
    "DirInventoryConfig",
    "ExportConfig",
    "Failure",
    "FilterConfig",
    "HeadPredictions",
    "ImagesInventoryConfig",
    "IncompleteDataError",
    "JsonInventoryConfig",
    "LabelError",
    "LoadedBundle",
    "Manifest",
    "MegadetectorInventoryConfig",
    "ModelConfig",
    "OptimizerConfig",
    "OutputInUseError",
    "PredictConfig",
    "Predictions",
    "ResizeConfig",
    "ScheduleConfig",
    "SchemaError",
    "ShowConfig",
    "SplitConfig",
    "Summary",
    "TooManyFailuresError",
    "TrainConfig",
    "TuneConfig",
    "UsageError",
    "__version__",
    "aggregate",
    "create_dataset",
    "create_inventory",
    "demo",
    "export",
    "load_bundle",
    "open_dataset",
    "predict",
    "read_manifest",
    "show",
    "train",
    "tune",
]

_HOMES = {
    "ctc_ray.api": (
        "LoadedBundle",
        "aggregate",
        "create_dataset",
        "create_inventory",
        "demo",
        "export",
        "load_bundle",
        "open_dataset",
        "predict",
        "read_manifest",
        "show",
        "train",
        "tune",
    ),
    "ctc_ray.config.aggregation": ("AggregateConfig",),
    "ctc_ray.config.dataset": (
        "BalanceConfig",
        "CreateDatasetConfig",
        "FilterConfig",
        "ResizeConfig",
        "SplitConfig",
    ),
    "ctc_ray.config.demo": ("DemoConfig",),
    "ctc_ray.config.inventory": (
        "CamtrapDpInventoryConfig",
        "CocoInventoryConfig",
        "CsvInventoryConfig",
        "DirInventoryConfig",
        "ImagesInventoryConfig",
        "JsonInventoryConfig",
        "MegadetectorInventoryConfig",
    ),
    "ctc_ray.config.model": ("ModelConfig",),
    "ctc_ray.config.optimization": (
        "OptimizerConfig",
        "ScheduleConfig",
    ),
    "ctc_ray.config.prediction": (
        "ExportConfig",
        "PredictConfig",
    ),
    "ctc_ray.config.show": ("ShowConfig",),
    "ctc_ray.config.training": (
        "AugmentConfig",
        "TrainConfig",
    ),
    "ctc_ray.config.tuning": ("TuneConfig",),
    "ctc_ray.console.summaries": ("Summary",),
    "ctc_ray.errors": (
        "ConfigError",
        "CtcError",
        "IncompleteDataError",
        "LabelError",
        "OutputInUseError",
        "SchemaError",
        "TooManyFailuresError",
        "UsageError",
    ),
    "ctc_ray.predictions.by_head": (
        "HeadPredictions",
        "Predictions",
    ),
    "ctc_ray.runs.manifest": ("Manifest",),
    "ctc_ray.schemas": ("Failure",),
}
"""Module -> the public names that it defines, as imported above for type checkers."""

_HOME = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # or a checker would take any name for one that exists

    def __getattr__(name: str) -> Any:
        """A public name, imported when it is first used (PEP 562)."""
        if name not in _HOME:
            raise AttributeError(f"module 'ctc_ray' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
