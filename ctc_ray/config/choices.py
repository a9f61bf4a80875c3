"""The values that a setting may have, each list declared once.

Code takes a choice apart with `match` and `assert_never`: a value that is added here and has no
branch somewhere does not type-check (`tests/config/test_choices.py` tries it).
"""

from typing import Literal

TruncatedPolicy = Literal["fail", "keep"]
"""What becomes of an image whose file ends early."""

ObservationRule = Literal["error", "drop", "first", "most-frequent"]
"""What becomes of a capture event with several different observations."""

UndatedRule = Literal["error", "train", "drop"]
"""What becomes of a capture event without a time in a split by time."""

MachineLabels = Literal["where-unlabelled", "keep", "only"]
"""What becomes of labels that a model gave, beside those of people."""

RarestClass = Literal["rarest"]
"""As many capture events per class as the rarest class has."""

UnmappedRule = Literal["keep", "drop"]
"""What becomes of the labels of classes that a class mapping does not name."""

Preset = Literal["default", "original"]
"""Settings of a training that go together."""

OptimizerName = Literal["sgd", "rmsprop", "adamw"]
"""How weights are updated."""

ScheduleName = Literal["plateau", "cosine", "one-cycle", "step", "constant"]
"""How the learning rate changes in the course of a training."""

ClassWeights = Literal["none", "inverse", "effective-number"]
"""How much an image counts in the loss, by how frequent its class is."""

Sampling = Literal["none", "balanced", "square-root"]
"""How often training sees the images of a class, by how frequent the class is."""

PixelNormalisation = Literal["backbone", "dataset"]
"""Whose mean and deviation the pixels are normalised by."""

Precision = Literal["float32", "bfloat16", "float16"]
"""Numbers that a network computes with."""

Decoding = Literal["cpu", "gpu"]
"""Where the images of a training are decoded."""

ImageChoice = Literal["random", "first", "all", "stack"]
"""The images of a capture event that one epoch of training uses."""

Colour = Literal["none", "standard", "little", "full_fast", "full_randomized"]
"""How the colours of training images are changed."""

Mixing = Literal["none", "mixup", "cutmix"]
"""How training images are mixed with others of their batch."""

Aggregation = Literal["mean", "max", "min", "mean-logit", "geometric-mean", "vote"]
"""How the probabilities of a capture event follow from those of its images."""

ExportFormat = Literal["table", "csv", "json"]
"""File formats of predictions beside Parquet."""

Engine = Literal["auto", "onnx", "torch"]
"""What computes a network on CPUs."""

ModelFormat = Literal["onnx", "torch-export"]
"""File formats of a model."""

DimensionKind = Literal["choice", "grid", "uniform", "loguniform", "randint", "same_as"]
"""How a search draws the values of one field."""

SearchPreset = Literal["none", "augmentation", "loss-weights", "optimizer"]
"""Fields of a search that go together."""

SearchMethod = Literal["random", "optuna", "pbt"]
"""How a search chooses the values of the next trial."""

TrialState = Literal["done", "stopped", "error"]
"""How a trial of a search has ended."""

StoppingRule = Literal["none", "asha", "median"]
"""How a search decides which trials end before their last epoch."""

Direction = Literal["min", "max"]
"""Whether the smallest or the largest value of a metric is best."""

TimeSource = Literal["original", "digitized", "maker-note", "modify-date", "file-name"]
"""Where the capture time of an image file is read."""

Tracking = Literal["none", "mlflow"]
"""Where the metrics of a training are logged while it runs."""
