import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ctc_ray.config.optimization import OptimizerConfig, ScheduleConfig
from ctc_ray.errors import DivergedError
from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import Batch, LoaderSettings, read_batches
from ctc_ray.training.loop import EpochSettings, Updates, channel_mean_std, evaluate, train_epoch
from ctc_ray.training.losses import LossSettings
from ctc_ray.training.optimizer import (
    EarlyStopping,
    LearningRateSchedule,
    make_optimizer,
)
from ctc_ray.training.plans import RowGroup, plan_epoch, plan_evaluation

MakeDataset = Callable[..., list[RowGroup]]
EVENTS = [(f"e{i:03d}", [None, None]) for i in range(24)]


class TinyModel(nn.Module):
    """A convolution, batch norm and dropout: all that could differ between two runs."""

    def __init__(self, label_space: LabelSpace) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.dropout = nn.Dropout(0.3)
        self.heads = nn.ModuleDict(
            {head: nn.Linear(8, label_space.n_classes(head)) for head in label_space.heads}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.dropout(self.body(images.float() / 255).mean(dim=(2, 3)))
        return {head: layer(features) for head, layer in self.heads.items()}


def brighten(images: Tensor, seeds: Sequence[int]) -> Tensor:
    shift = torch.tensor([seed % 20 for seed in seeds]).reshape(-1, 1, 1, 1)
    return (images.int() + shift).clamp(0, 255).to(torch.uint8)


class Run:
    """The state that an epoch passes to the next one."""

    def __init__(self, groups: list[RowGroup], loader: LoaderSettings) -> None:
        torch.manual_seed(0)
        self.groups, self.loader = groups, loader
        self.settings = EpochSettings(
            loader.label_space, LossSettings({"sex": 0.5}), seed=3, augment=brighten
        )
        self.model = TinyModel(loader.label_space)
        self.optimizer = make_optimizer(self.model, OptimizerConfig(learning_rate=0.1))
        schedule = ScheduleConfig(patience=1, factor=0.5)
        self.rate = LearningRateSchedule(schedule, learning_rate=0.1, max_epochs=9)
        self.stopping = EarlyStopping(2)

    def epoch(self, number: int) -> dict[str, float]:
        plan = plan_epoch(self.groups, image_choice="random", seed=3, epoch=number)
        batches = read_batches(plan, self.loader)
        train_epoch(
            self.model,
            batches,
            self.optimizer,
            self.settings,
            epoch=number,
            updates=Updates(lambda update: self.rate.at(number, update, 3)),
        )
        return self.check(number)

    def check(self, number: int) -> dict[str, float]:
        batches = read_batches(plan_evaluation(self.groups), self.loader)
        metrics = evaluate(self.model, batches, self.settings).compute()
        self.rate.step(metrics["loss"])
        self.stopping.step(number, metrics["loss"])
        return metrics

    def parts(self) -> list[Any]:
        return [self.model, self.optimizer, self.rate, self.stopping]

    def state(self) -> bytes:
        sink = io.BytesIO()
        torch.save([part.state_dict() for part in self.parts()], sink)
        return sink.getvalue()

    def load(self, state: bytes) -> None:
        states = torch.load(io.BytesIO(state), weights_only=True)
        for part, values in zip(self.parts(), states, strict=True):
            part.load_state_dict(values)


@pytest.fixture
def new_run(
    make_dataset: MakeDataset,
    label_space: LabelSpace,
    decode: Callable[[bytes, int], npt.NDArray[np.uint8]],
) -> Callable[[], Run]:
    groups = make_dataset(EVENTS)
    return lambda: Run(groups, LoaderSettings(label_space, decode, batch_size=8))


def test_two_runs_with_one_seed_give_the_same_bits(new_run: Callable[[], Run]) -> None:
    one, two = new_run(), new_run()
    for number in range(2):
        assert one.epoch(number) == two.epoch(number)
    assert one.state() == two.state()


def test_run_that_resumes_from_its_state_gives_the_same_bits(new_run: Callable[[], Run]) -> None:
    whole, first, second = new_run(), new_run(), new_run()
    whole.epoch(0)
    whole.epoch(1)
    first.epoch(0)
    torch.manual_seed(99)  # another process
    second.load(first.state())
    second.epoch(1)
    assert second.state() == whole.state()


def test_model_learns_what_can_be_learnt(new_run: Callable[[], Run]) -> None:
    run = new_run()
    accuracies = [run.epoch(number)["accuracy_species"] for number in range(15)]
    assert accuracies[-1] > 0.9  # the brightness depends on the class


def test_weights_of_losses_matter(new_run: Callable[[], Run]) -> None:
    metrics = new_run().check(0)
    weighted = metrics["loss_species"] + 0.5 * metrics["loss_sex"]
    assert metrics["loss"] == pytest.approx(weighted)


def test_evaluation_changes_nothing_and_sees_every_image_once(
    new_run: Callable[[], Run],
) -> None:
    run = new_run()
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    metrics = run.check(0)
    assert metrics["n_species"] == 48
    assert metrics["n_sex"] == 12  # every fourth event is labelled
    assert all(torch.equal(before[k], v) for k, v in run.model.state_dict().items())


def batch_of(images: Tensor) -> Batch:
    n = len(images)
    return Batch(
        images, {"species": torch.zeros(n, dtype=torch.int64)}, (0,) * n, ("",) * n, ("",) * n
    )


def test_channel_mean_std_by_hand() -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[1, 0] = 255  # red: half 0, half 1; green: all 51/255 = .2; blue: black
    images[:, 1] = 51
    statistics = channel_mean_std([batch_of(images[:1]), batch_of(images[1:])])
    assert statistics.mean == (0.5, 0.2, 0.0)
    assert statistics.std == (0.5, 1.0, 1.0)  # a channel that never changes is divided by 1


def test_channel_mean_std_use_at_most_4096_images() -> None:
    def batches() -> Iterator[Batch]:
        yield batch_of(torch.full((4000, 3, 1, 1), 255, dtype=torch.uint8))
        yield batch_of(torch.zeros(200, 3, 1, 1, dtype=torch.uint8))
        raise AssertionError("4096 images were seen already")

    assert channel_mean_std(batches()).mean == (round(4000 / 4096, 4),) * 3


@pytest.mark.parametrize("bad_step", [1, 3, 40])
def test_training_stops_at_the_first_loss_that_is_no_number(bad_step: int) -> None:
    labels = LabelSpace({"sex": ("f", "m")})
    model = TinyModel(labels)
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    seen = []

    def batches() -> Iterator[Batch]:
        for step in range(1, 60):
            seen.append(step)
            if step == bad_step:
                with torch.no_grad():
                    model.heads["sex"].bias.fill_(float("nan"))
            yield Batch(
                images, {"sex": torch.zeros(4, dtype=torch.int64)}, (1,) * 4, ("i",) * 4, ("e",) * 4
            )

    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    message = rf"epoch 3, step {bad_step}, at a learning rate of 0.25; try a smaller"
    with pytest.raises(DivergedError, match=message):
        train_epoch(model, batches(), optimizer, EpochSettings(labels), epoch=2)
    assert seen[-1] == bad_step
