import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from ctc_ray.config.base import build
from ctc_ray.config.search import parse_space, train_config
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.files import storage
from ctc_ray.reports.charts import javascript
from ctc_ray.stages.tune import report
from ctc_ray.stages.tune.objective import Objective, objective_of
from ctc_ray.stages.tune.progress import SearchProgress
from ctc_ray.stages.tune.records import EndedTrial
from ctc_ray.stages.tune.report import SearchPage
from ctc_ray.stages.tune.watching import how_to_watch, watching

SPACE = {
    "model.backbone": {"choice": ["small_cnn", "</script><script>alert(1)</script>", 'it\'s "x"']},
    "optimizer.learning_rate": {"loguniform": [1e-5, 0.1]},
    "optimizer.momentum": {"uniform": [0.1, 0.9], "when": {"model.backbone": "small_cnn"}},
    "model.image_size": {"choice": [None, 64]},
    "augment.flip": {"choice": [True, False]},
    "augment.brightness": {
        "same_as": "optimizer.momentum",
        "when": {"model.backbone": "small_cnn"},
    },
}


def config(output: Path | str, **fields: Any) -> TuneConfig:
    train = {"dataset_uri": "d", "heads": ["a", "b"]}
    values = {"output_uri": str(output), "train": train, "space": SPACE, "trials": 6, **fields}
    return TuneConfig.model_validate(values)


def ended(number: int, state: Any = "done", *, loss: float = 0.5) -> EndedTrial:
    sample: dict[str, Any] = {
        "model.backbone": SPACE["model.backbone"]["choice"][number % 3],
        "optimizer.learning_rate": 10.0 ** -(1 + number % 4),
        "model.image_size": (None, 64)[number % 2],
        "augment.flip": number % 2 == 0,
    }
    if number % 3 == 0:
        sample |= {"optimizer.momentum": 0.5, "augment.brightness": 0.5}
    rows = tuple({"epoch": k, "val_loss": loss + 1 / k} for k in (1.0, 2.0))
    kept = {"val_loss": loss} if state == "done" else None
    return EndedTrial(number, sample, rows, state, "" if kept else "so", 2.0, 9, kept=kept)


def page_of(mine: TuneConfig) -> SearchPage:
    dimensions = parse_space(mine)
    return SearchPage(mine, dimensions, objective_of(mine, dimensions), mine.trials)


def trials() -> dict[int, EndedTrial]:
    states = ["done", "stopped", "error", "done", "done", "stopped"]
    return {n: ended(n, state, loss=0.9 - n / 10) for n, state in enumerate(states)}


def test_the_page_holds_of_every_trial_the_configuration_that_train_takes(output_uri: str) -> None:
    mine = config(output_uri)
    page_of(mine).write(trials())
    html = storage.read_bytes(storage.join(output_uri, "trials.html")).decode()
    html = html.replace(javascript(), "")
    assert "<script>alert" not in html
    texts = re.findall(r'<pre tabindex="0" id="trial-(\d+)">(.*?)</pre>', html, flags=re.DOTALL)
    assert [name for name, _ in texts] == ["00004", "00003", "00000", "00005", "00001", "00002"]
    for name, text in texts:
        for code, letter in (("lt", "<"), ("gt", ">"), ("#34", '"'), ("#39", "'"), ("amp", "&")):
            text = text.replace(f"&{code};", letter)
        found = build(TrainConfig, yaml.safe_load(text), where=name)
        wanted = train_config(mine, trials()[int(name)].sample, output_uri=found.output_uri)
        assert found == wanted
        assert found.output_uri == storage.join(output_uri, f"model-{name}")
    assert "3 are done, and 10 are needed" in html


def test_a_page_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(report: object) -> bytes:
        raise ValueError("a number of a chart is not finite")

    monkeypatch.setattr("ctc_ray.reports.search.search_page", fail)
    with caplog.at_level("WARNING"):
        page_of(config(tmp_path)).write(trials())
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}/trials.html was not written: a number of a chart is not finite; "
        "the results do not need it"
    ]


def test_the_page_is_not_written_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, path = page_of(config(tmp_path)), tmp_path / "trials.html"
    now = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    page._next = 30.0
    page.write_if_due(trials())
    assert not path.exists()
    now[0] = 31.0
    page.write_if_due(trials())
    path.unlink()
    now[0] = 60.0
    page.write_if_due(trials())
    assert not path.exists()
    now[0] = 61.0
    page.write_if_due(trials())
    assert path.exists()


def test_tensorboard_finds_the_settings_and_the_metric_of_each_trial(tmp_path: Path) -> None:
    mine = config(tmp_path)
    with watching(mine, page_of(mine).objective, page_of(mine)) as watched:
        for one in trials().values():
            watched.add(one, trials())
    for number, one in trials().items():
        found = EventAccumulator(str(tmp_path / "models" / f"{number:05d}" / "tensorboard/hparams"))
        found.Reload()
        told = {
            name: plugin_data_pb2.HParamsPluginData.FromString(content)
            for name, content in found.PluginTagToContent("hparams").items()
        }
        sample = told["_hparams_/session_start_info"].session_start_info.hparams
        assert set(sample) == set(one.sample)
        assert (
            sample["optimizer.learning_rate"].number_value == one.sample["optimizer.learning_rate"]
        )
        assert sample["model.backbone"].string_value == one.sample["model.backbone"]
        assert sample["augment.flip"].bool_value == one.sample["augment.flip"]
        status = told["_hparams_/session_end_info"].session_end_info.status
        assert status == (2 if one.state == "error" else 1)  # of TensorBoard: failure, success
        (event,) = found.Scalars("val_loss")
        wanted = one.kept or one.history[-1]
        assert (event.step, event.value) == (2, pytest.approx(wanted["val_loss"]))


def test_a_metric_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    mine = config(tmp_path)
    diverged = replace(ended(2, "error"), history=({"epoch": 1.0, "val_loss": math.inf},))
    with watching(mine, page_of(mine).objective, page_of(mine)) as watched:
        watched.add(diverged, {2: diverged})
    found = EventAccumulator(str(tmp_path / "models" / "00002" / "tensorboard/hparams"))
    found.Reload()
    assert found.Tags()["scalars"] == []


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        ("/herd/tuned", "tensorboard --logdir /herd/tuned/models"),
        (
            "s3://herd/tuned",
            "aws s3 sync --exclude '*' --include '*tfevents*' s3://herd/tuned/models tuned/models "
            "&& tensorboard --logdir tuned/models",
        ),
        (
            "gs://herd/tuned",
            "gcloud storage rsync -r --exclude='^(?!.*tfevents).*$' gs://herd/tuned/models "
            "tuned/models && tensorboard --logdir tuned/models",
        ),
    ],
)
def test_a_search_says_how_to_watch_it(uri: str, command: str) -> None:
    assert how_to_watch(uri) == f"see {storage.join(uri, 'trials.html')}, or run: {command}"


class FakeTrial:
    """A trial, as Ray Tune hands it to callbacks."""

    def __init__(self, number: int) -> None:
        self.config = {
            "number": number,
            "sample": {"optimizer.learning_rate": 0.01 * (number + 1)},
            "parent": None,
        }

    def get_pickled_error(self) -> Exception:
        return RuntimeError("CUDA out of memory")


class FakeBoard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, lines: list[str]) -> None:
        self.lines = lines


def test_the_table_on_a_terminal_shows_what_runs_what_is_best_and_what_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mine = config(tmp_path, trials=40)
    loss = Objective("val_loss", {"val_loss": 1.0}, is_pareto=False)
    known = {n: replace(ended(n), kept={"val_loss": 1.0 - n / 100}) for n in range(20)}
    progress = SearchProgress(mine, loss, known, n_planned=40, n_items=[3])
    progress.board = shown = FakeBoard()  # type: ignore[assignment]
    reads: list[str] = []
    monkeypatch.setattr("ctc_ray.stages.tune.folds.read_provenance", reads.append)
    with caplog.at_level(logging.INFO):
        for number in range(20, 32):
            progress.on_trial_start(trial=FakeTrial(number))
        progress.on_trial_result(trial=FakeTrial(20), result={"epoch": 3, "val_loss": 0.4321})
        progress.on_trial_error(trial=FakeTrial(21))
    first, head, *rows, more = shown.lines
    assert first.startswith("21 of 40 trials have ended: 20 done, 0 stopped, 1 failed, 11 running")
    assert head.split()[:4] == ["trial", "state", "epoch", "val_loss"]
    assert rows[0].split()[:4] == ["00019", "best", "2", "0.81"]
    assert rows[1].split()[:4] == ["00020", "running", "3/30", "0.4321"]
    assert rows[2].split()[:3] == ["00022", "running", "0/30"]
    assert rows[-1].split(maxsplit=3) == ["00021", "failed", "0", "CUDA out of memory"]
    assert more == "and 3 more running"
    assert len({row.index(row.split()[1]) for row in rows}) == 1
    assert [r.getMessage() for r in caplog.records] == [
        "trial 00021 failed after 0 epochs (optimizer.learning_rate=0.22): CUDA out of memory"
    ]
    assert reads == []  # the values of 20 models are in their records


def test_the_seconds_of_a_trial_are_those_of_all_its_epochs_also_in_a_run_before(
    tmp_path: Path,
) -> None:
    mine = config(tmp_path)
    loss = Objective("val_loss", {"val_loss": 1.0}, is_pareto=False)
    progress = SearchProgress(mine, loss, {}, n_planned=2, n_items=[3])
    speed = tmp_path / "models" / "00000" / "speed.csv"
    speed.parent.mkdir(parents=True)
    speed.write_text("epoch,seconds,images_per_s,waiting_share\n1,40.5,1,0\n2,30,1,0\n")
    for number in (0, 1):
        progress.on_trial_start(trial=FakeTrial(number))
        progress.on_trial_error(trial=FakeTrial(number))
    assert progress.ended[0].seconds == 70.5
    assert progress.ended[1].seconds < 1


def test_the_search_of_an_earlier_version_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    class Provenance:
        metrics: Mapping[str, float] = {"loss": 0.25}

    def read(uri: str) -> Any:
        reads.append(uri)
        return Provenance

    monkeypatch.setattr("ctc_ray.stages.tune.folds.read_provenance", read)
    loss = Objective("val_loss", {"val_loss": 1.0}, is_pareto=False)
    known = {n: replace(ended(n), kept=None) for n in range(3)}
    progress = SearchProgress(config(tmp_path), loss, known, n_planned=6, n_items=[3])
    for _ in range(4):
        assert "with val_loss 0.25" in progress.line()
    assert len(reads) == 3


def test_a_record_holds_what_the_table_needs(tmp_path: Path) -> None:
    ended(0).write(str(tmp_path))
    values = json.loads((tmp_path / "trials" / "00000.json").read_text())
    assert values["kept"] == {"val_loss": 0.5}
