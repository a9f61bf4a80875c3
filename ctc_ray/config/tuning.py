"""Configuration of `ctc tune`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import Field, field_validator, model_validator

from ctc_ray.config.base import Shown, StageConfig, merge
from ctc_ray.config.choices import SearchMethod, SearchPreset, StoppingRule
from ctc_ray.config.dataset import fold_names
from ctc_ray.config.search_presets import space_of


class TuneConfig(StageConfig):
    """Search for the training settings that give the best model."""

    example: ClassVar[str] = """\
ctc tune --dataset-uri dataset --output-uri tuned --heads species count \\
    --preset augmentation"""
    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        *("trials", "concurrent_trials", "max_hours", "max_images"),
    }

    dataset_uri: Annotated[str | None, Shown("train.dataset_uri")] = None
    """Folder written by `ctc create-dataset`."""
    heads: Annotated[tuple[str, ...], Shown("train.heads")] = ()
    """Heads to learn."""
    preset: SearchPreset = "none"
    """Settings to search. augmentation: the strength of the changes of geometry, that of the
    changes of colour, gray, erasing and mixing. loss-weights: the
    weights of heads and of classes. optimizer: learning rates and weight decay.
    Settings of --space are added, or go before."""
    train: dict[str, Any] = Field({})
    """Settings of `ctc train` that all trials share, without output_uri. Best given in the --config
    file."""
    space: dict[str, Any] = Field({})
    """Settings to search and their values: {choice: […]}, {grid: […]}, {uniform: [low, high]},
    {loguniform: [low, high]}, {randint: [low, high]} or {same_as: another setting}, also with
    `times: number` beside. With `when: {another setting: value}` beside, the setting is searched
    only then. Best given in the --config file."""
    folds: Annotated[tuple[str, ...], Shown("one training per trial", "N|SPLIT")] = ()
    """Train each trial once for each of these splits, which measures the model that has learnt from
    all others of them; its value is the mean over the splits. 5: fold-0 to fold-4, as made by `ctc
    create-dataset --split.folds 5`."""
    metric: Annotated[str | None, Shown("train.monitor, or val_macro_f1", "METRIC")] = None
    """Metric that compares trials, of the epoch that each trial keeps: val_loss, or for example
    val_accuracy_species. Without a head, for example val_macro_f1: the mean over all heads. The
    smallest loss is best; for other metrics the largest value. The default is val_macro_f1 where
    loss weights are searched."""
    head_weights: Annotated[dict[str, float], Shown("1 for every head")] = Field({})
    """Used with a --metric without a head: weight of each head in the mean."""
    pareto: bool = False
    """Used with a --metric without a head: keep every trial than which no other is better for all
    heads (the Pareto front), and let --method optuna look for all of them."""
    method: SearchMethod = "random"
    """How values are chosen. random: at random, the same ones for a seed. optuna: by Optuna's TPE,
    from the trials that have ended. pbt: population-based training (Jaderberg et al. 2017): trials
    go on from the weights of earlier ones, the worst from those of the best with changed values."""
    population: int = Field(4, ge=2)
    """Used with --method pbt: trials of a generation. Each trains for train.max_epochs epochs, from
    the weights of a trial of the generation before. --trials counts those of all generations, so 16
    are 4 generations of 4."""
    stopping: Annotated[StoppingRule | None, Shown("asha; none with --method pbt")] = None
    """Which trials end early. asha: those behind others after as many epochs (Li et al. 2020).
    median: those whose best value is worse than the median of the others' means. none: no one.
    With --folds, trials are compared after each fold, by the mean over the folds so far."""
    base_first: bool = True
    """Let the first trial be the train configuration as it is, if that lies in the space: so the
    search shows what the others gain."""
    trials: int = Field(10, gt=0)
    """Number of trials. With grid: number of times that the whole grid is tried. A larger number
    makes a finished search go on."""
    concurrent_trials: int = Field(1, gt=0)
    """Number of trials at the same time."""
    gpus_per_trial: Annotated[float | None, Field(ge=0), Shown("those of train")] = None
    """GPUs that Ray reserves for a trial with one worker, for example 0.25: four trials share a
    GPU."""
    max_hours: Annotated[float | None, Field(gt=0), Shown("no limit")] = None
    """Begin no further trial when all trials together have taken so many hours."""
    max_images: Annotated[int | None, Field(gt=0), Shown("no limit")] = None
    """Begin no further trial when all trials together have learnt from so many images."""
    grace_epochs: int = Field(1, gt=0)
    """Epochs, or with --folds folds, that every trial gets before it can be stopped."""
    reduction_factor: int = Field(4, ge=2)
    """Used with --stopping asha: at each stage of the search, one trial in this many continues."""
    seed: int = Field(0, ge=0)
    """Seed of the search."""

    @model_validator(mode="after")
    def _generations_are_whole(self) -> Self:
        if self.method == "pbt" and self.rule != "none":
            raise ValueError(
                f"method pbt compares whole generations; stopping is {self.stopping}, not none"
            )
        if self.method == "pbt" and self.folds:
            raise ValueError("method pbt goes on from one model of a trial; folds make several")
        return self

    @property
    def rule(self) -> StoppingRule:
        """Which trials end early."""
        return self.stopping or ("none" if self.method == "pbt" else "asha")

    @field_validator("folds", mode="before")
    @classmethod
    def _names_of_folds(cls, value: Any) -> Any:
        (one,) = value if isinstance(value, list | tuple) and len(value) == 1 else (value,)
        is_number = str(one).isdecimal() and not isinstance(one, list | tuple)
        return fold_names(int(one)) if is_number else value

    @model_validator(mode="after")
    def _folds_are_splits(self) -> Self:
        if len(self.folds) == 1:
            raise ValueError("folds: expected at least 2, a number or names of splits")
        if hidden := [name for name in self.folds if name.startswith((".", "_"))]:
            raise ValueError(f"folds: {hidden[0]} cannot be the name of a model's folder")
        given = [name for name in ("train_splits", "val_splits") if name in self._settings]
        if self.folds and given:
            raise ValueError(f"give folds or {given[0]}; folds says what each training learns from")
        return self

    @property
    def _settings(self) -> set[str]:
        """The settings of `ctc train` that are given or searched, without those in groups."""
        return {*self.train, *self.space}

    @model_validator(mode="before")
    @classmethod
    def _train_and_space(cls, values: Any) -> Any:
        """Puts the dataset and the heads into `train`, and the preset's fields into `space`."""
        if not isinstance(values, Mapping):
            return values
        named = {key: values[key] for key in ("dataset_uri", "heads") if values.get(key)}
        train, space = values.get("train", {}), values.get("space", {})
        if not isinstance(train, Mapping) or not isinstance(space, Mapping):
            return values
        train = merge(train, named)
        preset = values.get("preset", "none")
        if preset not in get_args(SearchPreset):
            return values
        own = space_of(preset, train.get("heads", ()))
        left = {key: value for key, value in values.items() if key not in named}
        return {**left, "train": train, "space": {**own, **space}, "preset": "none"}
