"""What a training tells the search that it is a trial of."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from builders import train_config

from ctc_ray.config.optimization import OptimizerConfig
from ctc_ray.stages.train import stage as train


@pytest.mark.parametrize(("patience", "max_epochs"), [(1, 50), (0, 3)])
def test_the_epoch_with_which_training_ends_is_told_apart_also_when_it_is_resumed(
    dataset: Path, tmp_path: Path, patience: int, max_epochs: int
) -> None:
    """A search must not stop a trial in the epoch after which it ends by itself."""
    config = train_config(dataset, tmp_path / "model").replaced(
        max_epochs=max_epochs,
        early_stopping_patience=patience,
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.5, backbone_rate=1.0),
    )
    reported: list[tuple[float, bool]] = []
    again: list[tuple[float, bool]] = []

    def cut(metrics: Mapping[str, float], is_last: bool) -> None:
        reported.append((metrics["epoch"], is_last))
        if is_last:
            raise KeyboardInterrupt

    def keep(metrics: Mapping[str, float], is_last: bool) -> None:
        again.append((metrics["epoch"], is_last))

    with pytest.raises(KeyboardInterrupt):
        train.run(config, trial=train.Trial(1, report=cut))
    assert len(reported) < 50
    last = len(reported)
    assert reported == [(epoch, epoch == last) for epoch in range(1, last + 1)]
    train.run(config, trial=train.Trial(1, report=keep))
    assert again == reported
