import math
from typing import Any

import pytest
import torch
from torch import nn

from ctc_ray.config.optimization import OptimizerConfig, ScheduleConfig
from ctc_ray.models.backbones import make_backbone, weight_blocks
from ctc_ray.training.optimizer import (
    EarlyStopping,
    LearningRateSchedule,
    make_optimizer,
    set_learning_rate,
)


def values(losses: list[float], max_epochs: int = 10, **config: Any) -> list[float]:
    """The rate of the first of 4 updates of each epoch."""
    given = {"name": "plateau", "warmup_epochs": 0, **config}
    rate = LearningRateSchedule(ScheduleConfig(**given), learning_rate=0.01, max_epochs=max_epochs)
    found = [rate.at(0, 0, 4)]
    for epoch, loss in enumerate(losses, 1):
        rate.step(loss)
        found.append(rate.at(epoch, 0, 4))
    return found


def all_rates(n_epochs: int, n_updates: int, **config: Any) -> list[float]:
    given = {"warmup_epochs": 0, **config}
    rate = LearningRateSchedule(ScheduleConfig(**given), learning_rate=0.01, max_epochs=n_epochs)
    return [rate.at(e, u, n_updates) for e in range(n_epochs) for u in range(n_updates)]


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adamw"])
def test_only_matrices_that_may_change_have_weight_decay(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    config = OptimizerConfig.model_validate({"name": name, "weight_decay": 0.1})
    plain, decayed = make_optimizer(model, config).param_groups
    assert decayed["params"] == [model[2].weight]
    assert decayed["weight_decay"] == 0.1
    assert [tuple(weight.shape) for weight in plain["params"]] == [(4,), (4,), (2,)]
    assert plain["weight_decay"] == 0


def test_every_field_of_the_optimizer_has_an_effect() -> None:
    model = nn.Linear(2, 2)
    sgd = make_optimizer(model, OptimizerConfig(name="sgd", learning_rate=0.3, momentum=0.4))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.param_groups[0]["lr"], sgd.param_groups[0]["momentum"]) == (0.3, 0.4)
    nesterov = make_optimizer(model, OptimizerConfig(name="sgd", nesterov=True))
    assert nesterov.param_groups[0]["nesterov"]
    rmsprop = make_optimizer(model, OptimizerConfig(name="rmsprop", momentum=0.5))
    assert isinstance(rmsprop, torch.optim.RMSprop)
    assert rmsprop.param_groups[0]["momentum"] == 0.5
    adamw = make_optimizer(model, OptimizerConfig(name="adamw", learning_rate=0.2))
    assert isinstance(adamw, torch.optim.AdamW)
    set_learning_rate(adamw, 0.1)
    assert {group["lr"] for group in adamw.param_groups} == {0.1}


def test_plateau_reduces_after_patience_epochs_without_gain() -> None:
    found = values([1.0, 0.9, 0.9, 0.89995, 0.9, 0.9], patience=2)
    assert found == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.001, 0.001, 0.0001])


def test_plateau_never_goes_below_the_smallest_rate() -> None:
    assert values([1.0] * 20, patience=1, min_learning_rate=0.002)[-1] == 0.002


def test_schedule_never_raises_a_rate_that_is_smaller_than_the_smallest() -> None:
    assert values([1.0] * 20, patience=1, min_learning_rate=0.5)[-1] == 0.01


def test_loss_that_is_no_number_is_no_gain() -> None:
    assert values([math.nan] * 3, patience=2)[-1] == pytest.approx(0.001)


def test_cosine_falls_to_half_in_the_middle_and_to_nothing_at_the_end() -> None:
    found = values([1.0] * 10, name="cosine", min_learning_rate=0.0)
    assert found[0] == 0.01
    assert found[5] == pytest.approx(0.005)
    assert found[10] == pytest.approx(0)
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("name", ["cosine", "plateau", "step", "one-cycle", "constant"])
def test_every_schedule_warms_up_linearly_step_by_step(name: str) -> None:
    found = all_rates(6, 5, name=name, warmup_epochs=2)[:10]
    assert found == pytest.approx([0.01 * (k + 1) / 11 for k in range(10)])


def test_cosine_falls_within_an_epoch_as_that_of_torch() -> None:
    found = all_rates(6, 5, name="cosine", min_learning_rate=0.0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    expected = []
    for _ in range(30):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found == pytest.approx(expected)


def test_one_cycle_is_that_of_torch() -> None:
    found = all_rates(10, 100, name="one-cycle")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=1001)
    expected = []
    for _ in range(1000):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found == pytest.approx(expected, abs=5e-5)  # torch's rise ends one update earlier


def test_step_reduces_every_so_many_epochs() -> None:
    found = values([1.0] * 6, name="step", step_epochs=2, min_learning_rate=1e-4)
    assert found == pytest.approx([0.01, 0.01, 0.001, 0.001, 1e-4, 1e-4, 1e-4])


def test_constant_rate_is_constant() -> None:
    assert set(values([1.0] * 10, name="constant")) == {0.01}


@pytest.mark.parametrize("name", ["plateau", "cosine", "step", "one-cycle", "constant"])
def test_schedule_resumes_from_its_state(name: str) -> None:
    config = ScheduleConfig.model_validate({"name": name, "patience": 2})
    losses = [1.0, 0.8, 0.9, 0.9, 0.9, 0.7, 0.7, 0.7, 0.7]
    whole = LearningRateSchedule(config, learning_rate=0.01, max_epochs=9)
    for epoch, loss in enumerate(losses):
        resumed = LearningRateSchedule(config, learning_rate=0.01, max_epochs=9)
        resumed.load_state_dict(whole.state_dict())
        whole.step(loss)
        resumed.step(loss)
        assert resumed.state_dict() == whole.state_dict()
        assert resumed.at(epoch + 1, 0, 3) == whole.at(epoch + 1, 0, 3)


def stopped_at(losses: list[float], patience: int) -> int | None:
    stopping = EarlyStopping(patience)
    for epoch, loss in enumerate(losses):
        other = EarlyStopping(patience)
        other.load_state_dict(stopping.state_dict())
        stopping = other
        stopping.step(epoch, loss)
        if stopping.should_stop:
            return epoch
    return None


def test_stops_after_patience_epochs_without_a_better_loss() -> None:
    assert stopped_at([1.0, 0.9, 0.95, 0.9, 0.91, 0.5], patience=3) == 4
    assert stopped_at([math.nan] * 5, patience=3) == 2


def test_patience_of_zero_never_stops() -> None:
    assert stopped_at([1.0] * 50, patience=0) is None


def test_best_epoch_is_remembered() -> None:
    stopping = EarlyStopping(3)
    marks = []
    for epoch, loss in enumerate([1.0, 0.8, 0.8, math.nan, 0.7]):
        stopping.step(epoch, loss)
        marks.append(stopping.is_best)
    assert marks == [True, True, False, False, True]
    assert (stopping.best_epoch, stopping.best) == (4, 0.7)


def test_the_first_blocks_of_a_backbone_learn_least() -> None:
    network = make_backbone("resnet18", image_size=64).network
    model = nn.Sequential(network, nn.Linear(512, 3))
    config = OptimizerConfig(layer_decay=0.5, learning_rate=1.0)
    optimizer = make_optimizer(model, config, weight_blocks(network), backbone_rate=0.1)
    set_learning_rate(optimizer, 2.0)
    rate = {w: group["lr"] for group in optimizer.param_groups for w in group["params"]}
    names = dict(network.named_parameters())
    assert rate[model[1].weight] == 2.0
    last, before, first = (
        rate[names[name]]
        for name in ("layer4.1.conv1.weight", "layer4.0.conv1.weight", "conv1.weight")
    )
    assert last == pytest.approx(2.0 * 0.1 * 0.5)
    assert before == pytest.approx(last / 2)
    assert first == pytest.approx(last / 2**8)
    assert len(rate) == len(list(model.parameters()))


def test_every_weight_of_small_cnn_has_a_block() -> None:
    network = make_backbone("small_cnn").network
    blocks = weight_blocks(network)
    assert set(blocks) == set(network.parameters())
    assert sorted(set(blocks.values())) == [0, 1, 2, 3]
