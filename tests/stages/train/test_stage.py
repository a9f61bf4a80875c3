import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
import torch
from builders import bytes_below, dataset_config, train_config
from safetensors.torch import save_file

from ctc_ray.config.dataset import SplitConfig
from ctc_ray.config.model import ModelConfig
from ctc_ray.config.optimization import OptimizerConfig
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.console import logs
from ctc_ray.errors import ConfigError, DivergedError, LabelError
from ctc_ray.files import parquet
from ctc_ray.models.bundle import load_bundle
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.train import measuring, worker
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.train.job import TrainingJob

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def test_bundle_names_heads_classes_and_where_it_comes_from(bundle: Path, dataset: Path) -> None:
    loaded = load_bundle(str(bundle))
    assert loaded.label_space.to_json() == {
        "species": ["blue", "green", "red"],
        "count": ["1", "2"],
    }
    assert loaded.provenance.config["dataset_uri"] == str(dataset)
    assert loaded.provenance.n_training_images["species"].keys() == {"blue", "green", "red"}
    files = {path.name for path in bundle.iterdir()}
    assert {"weights.safetensors", "bundle.json", "README.md", "history.csv"} <= files


def test_three_colours_are_learnt(bundle: Path) -> None:
    metrics = load_bundle(str(bundle)).provenance.metrics
    assert metrics["accuracy_species"] > 0.8


def test_missing_labels_are_not_counted(bundle: Path, dataset: Path) -> None:
    rows = parquet.read_folder(str(dataset / "split=val"))
    rows = rows.filter(pc.is_null(rows["failure"]))
    metrics = load_bundle(str(bundle)).provenance.metrics
    assert metrics["n_species"] == rows.num_rows
    assert metrics["n_count"] == rows.num_rows - rows["label_count"].null_count


@pytest.mark.parametrize("head", ["species", "count"])
def test_accuracy_per_event_is_that_of_the_predictions_of_the_split(
    bundle: Path, dataset: Path, tmp_path: Path, head: str
) -> None:
    predict.run(
        PredictConfig(
            bundle_uri=str(bundle),
            output_uri=str(tmp_path / "out"),
            dataset_uri=str(dataset),
            split="val",
        ),
        executor=InProcess(),
    )
    events = parquet.read_folder(str(tmp_path / "out" / "events"))
    predicted = dict(
        zip(events["capture_event_id"].to_pylist(), events[f"pred_{head}"].to_pylist(), strict=True)
    )
    labels: dict[str, Counter[str]] = {}
    for row in parquet.read_folder(str(dataset / "split=val")).to_pylist():
        if row["failure"] is None and row[f"label_{head}"] is not None:
            labels.setdefault(row["capture_event_id"], Counter())[row[f"label_{head}"]] += 1
    answers = [
        predicted[event] == min(votes, key=lambda name: (-votes[name], name))
        for event, votes in labels.items()
    ]
    metrics = load_bundle(str(bundle)).provenance.metrics
    assert metrics[f"event_n_{head}"] == len(answers) > 0
    assert metrics[f"event_accuracy_{head}"] == pytest.approx(sum(answers) / len(answers))


def test_history_has_a_row_per_epoch(bundle: Path) -> None:
    lines = (bundle / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + 6
    assert {"epoch", "train_loss", "val_loss", "val_accuracy_species"} <= set(lines[0].split(","))


def test_finished_training_is_left_alone(bundle: Path, dataset: Path) -> None:
    before = bytes_below(bundle)
    train.run(train_config(dataset, bundle))
    assert bytes_below(bundle) == before


def test_metrics_of_two_workers_are_those_of_the_saved_model(dataset: Path, tmp_path: Path) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(
        workers=2, cpu_per_worker=0.5, max_epochs=2
    )
    train.run(config)
    bundle = load_bundle(str(tmp_path / "model"))
    alone = TrainingJob(
        config, read_manifest(str(dataset), "dataset"), rank=0, n_workers=1, device="cpu"
    )
    alone._model.load_state_dict(bundle.model.state_dict())
    found = alone._measuring.kept(alone._model, epoch=1, on_test=False)
    metrics = found.with_calibration()
    assert metrics["n_species"] > metrics["n_count"] > 0
    assert metrics == pytest.approx(bundle.provenance.metrics, rel=1e-5)


def test_workers_that_the_machine_cannot_hold_are_refused_before_anything_is_begun(
    dataset: Path, tmp_path: Path
) -> None:
    config = train_config(dataset, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"--workers 999, .*: needs 999 CPUs, this machine has"):
        train.run(config.replaced(workers=999))
    with pytest.raises(ConfigError, match=r"needs 99 GPUs, this machine has \d+$"):
        train.run(config.replaced(gpu_per_worker=99))
    assert not (tmp_path / "model").exists()


def test_relative_weights_are_found_by_workers_and_their_content_is_an_input(
    dataset: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_bundle(str(bundle)).model.backbone.state_dict()
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(weights, tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    config = train_config(dataset, tmp_path / "model").replaced(
        max_epochs=1,
        model=ModelConfig(image_size=32, pretrained="weights.safetensors", freeze_backbone=True),
    )
    manifest = train.run(config)
    path = tmp_path / "weights.safetensors"
    assert manifest.inputs[str(path)] == hashlib.sha256(path.read_bytes()).hexdigest()
    save_file({name: tensor * 2 for name, tensor in weights.items()}, path)
    with pytest.raises(ConfigError, match="another configuration"):
        train.run(config)


def test_head_that_the_dataset_lacks_is_named(dataset: Path, tmp_path: Path) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(heads=("genus",))
    with pytest.raises(
        LabelError, match="'genus' is no head of the dataset; its heads are species"
    ):
        train.run(config)


def test_dataset_without_validation_images_is_refused(
    local_ray: None, photos: Path, inventory: Path, tmp_path: Path
) -> None:
    whole = dataset_config(inventory, photos, tmp_path / "dataset").replaced(
        split=SplitConfig(fractions={"train": 1.0})
    )
    create_dataset.run(whole)
    with pytest.raises(ConfigError, match="no usable image in split 'val'; splits are train"):
        train.run(train_config(tmp_path / "dataset", tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_head_without_a_label_in_a_split_is_refused(dataset: Path) -> None:
    manifest = read_manifest(str(dataset), "dataset")
    manifest.labels["val"]["count"] = dict.fromkeys(manifest.labels["val"]["count"], 0)
    with pytest.raises(ConfigError, match="no usable image of split 'val' has a label of head"):
        train._check_labels(train_config(dataset, dataset), manifest)


def test_weights_file_that_is_not_there_is_named(dataset: Path, tmp_path: Path) -> None:
    config = train_config(dataset, tmp_path / "model")
    config = config.replaced(model=config.model.model_copy(update={"pretrained": "no.safetensors"}))
    with pytest.raises(ConfigError, match=r"no.safetensors: no such file"):
        train.run(config)


def test_backbone_that_does_not_exist_is_named_before_ray_starts(
    dataset: Path, tmp_path: Path
) -> None:
    config = train_config(dataset, tmp_path / "model")
    config = config.replaced(model=config.model.model_copy(update={"backbone": "resnet81"}))
    with pytest.raises(ConfigError, match="resnet18"):
        train.run(config)
    assert not (tmp_path / "model").exists()


def test_training_that_diverges_is_one_clear_line(dataset: Path, tmp_path: Path) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(
        max_epochs=1, optimizer=OptimizerConfig(name="sgd", learning_rate=1e30)
    )
    with pytest.raises(DivergedError, match=r"training diverged: .* epoch"):
        train.run(config)


def test_a_loss_on_the_validation_split_that_is_no_number_ends_the_training(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after an epoch that was sound."""
    original, n_evaluated = measuring.evaluate, 0

    def overflowing(model: torch.nn.Module, batches: Any, settings: Any, **more: Any) -> Any:
        nonlocal n_evaluated
        n_evaluated += 1
        counts = original(model, batches, settings, **more)
        if n_evaluated == 2:
            counts.non_finite["count"] += 1
        return counts

    monkeypatch.setattr(measuring, "evaluate", overflowing)
    config = train_config(dataset, tmp_path / "model").replaced(max_epochs=4)
    with pytest.raises(DivergedError, match="validation split is not a number after epoch 2, at"):
        train.run(config)
    assert n_evaluated == 2


def test_manifest_holds_the_validation_metrics(bundle: Path) -> None:
    manifest = read_manifest(str(bundle), "bundle")
    heads = [row["head"] for row in manifest.summary["on the validation split"]]
    assert heads == ["species", "count"]


def test_one_image_per_batch_and_batch_norm_are_one_clear_line(
    dataset: Path, tmp_path: Path
) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(batch_size=1)
    with pytest.raises(ConfigError, match="batch_size 1: small_cnn normalises over the images"):
        train.run(config)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("freeze", [False, True])
def test_a_share_of_one_image_and_batch_norm_are_one_clear_line(
    dataset: Path, tmp_path: Path, freeze: bool
) -> None:
    manifest = read_manifest(str(dataset), "dataset")
    n_items = sum(g.n_usable_images for s in manifest.shards if s.split == "train"
                  for g in s.row_groups)  # fmt: skip
    config = train_config(dataset, tmp_path / "model").replaced(
        workers=n_items, model=ModelConfig(image_size=32, freeze_backbone=freeze)
    )
    train.check_model(config.replaced(workers=n_items - 1), manifest)  # two images for each
    if freeze:
        train.check_model(config, manifest)
        return
    message = f"{n_items} training images on {n_items} workers give 1 per batch: small_cnn norm"
    with pytest.raises(ConfigError, match=message):
        train.check_model(config, manifest)


def test_what_cannot_be_learnt_is_told_before_training(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = train_config(dataset, tmp_path / "model")
    manifest = read_manifest(str(dataset), "dataset")
    labels = {s: {h: dict(c) for h, c in of.items()} for s, of in manifest.labels.items()}
    labels["train"]["species"]["red"] = 0
    classes = {**manifest.classes, "count": ["1"]}
    labels["train"]["count"] = {"1": 9}
    labels["val"]["count"] = {"1": 9}
    train._check_labels(config, manifest.model_copy(update={"labels": labels, "classes": classes}))
    assert "head species: no training image of red; the model cannot learn these" in caplog.text
    assert "head count has one class only" in caplog.text


@pytest.mark.parametrize(
    ("asked", "here", "trainings", "machine", "expected"),
    [(1, 1, 1, 8, 8), (1, 2, 1, 8, 4), (1, 1, 4, 8, 2), (1, 2, 4, 8, 1), (3, 2, 1, 8, 3),
     (16, 1, 1, 8, 8), (0.5, 1, 3, 2, 1)],
)  # fmt: skip
def test_threads_are_a_workers_share_of_the_cpus_that_there_are(
    monkeypatch: pytest.MonkeyPatch, asked, here, trainings, machine, expected
) -> None:
    monkeypatch.setattr(worker, "n_cpus", lambda: machine)
    session = worker.Session(
        rank=0, n_workers=here, n_workers_here=here, n_trainings=trainings, device="cpu",
        wrap=lambda m: m, report=lambda *_: None, show=lambda _: None,
    )  # fmt: skip
    config = TrainConfig(dataset_uri="d", output_uri="o", heads=("a",), cpu_per_worker=asked)
    assert worker.n_threads(config, session) == expected


@pytest.mark.parametrize(
    ("asked", "there", "workers", "expected"),
    [
        (None, 0, 1, 0),
        (None, 1, 1, 1),
        (None, 1, 2, 0),
        (None, 4, 2, 1),
        (0, 4, 2, 0),
        (1, 0, 1, 1),
    ],
)
def test_gpus_that_are_there_are_used(
    monkeypatch: pytest.MonkeyPatch,
    asked: float | None,
    there: int,
    workers: int,
    expected: float,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    config = TrainConfig(
        dataset_uri="d", output_uri="o", heads=("a",), gpu_per_worker=asked, workers=workers
    )
    assert train.with_gpus(config, on_cluster=False).gpus == expected


def test_an_error_of_the_data_is_not_tried_again_by_workers_on_ray(
    local_ray: None, dataset: Path, tmp_path: Path
) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(
        workers=2, cpu_per_worker=0.5, optimizer=OptimizerConfig(name="sgd", learning_rate=1e30)
    )
    with pytest.raises(DivergedError, match=r"at a learning rate of \d[.]\d+e[+]29"):
        train.run(config)
    assert not list((tmp_path / "model").glob("_work/checkpoints/*.pt"))


def test_a_bundle_to_start_from_brings_its_pixels_its_size_and_its_heads(
    bundle: Path, dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a rate of almost 0 the new model is the old one: it answers with the same metrics."""
    old = load_bundle(str(bundle))
    config = train_config(dataset, tmp_path / "model").replaced(
        max_epochs=1,
        model=ModelConfig(pretrained=str(bundle), freeze_backbone=True),
        optimizer=OptimizerConfig(name="sgd", learning_rate=1e-30),
    )
    with caplog.at_level("INFO"):
        train.run(config)
    new = load_bundle(str(tmp_path / "model"))
    assert new.image_size == old.image_size
    assert new.model.pixel_mean == old.model.pixel_mean
    assert new.model.pixel_std == old.model.pixel_std
    for name, value in old.provenance.metrics.items():
        assert new.provenance.metrics[name] == pytest.approx(value, abs=1e-6), name
    assert "head species: its weights, too" in caplog.text
    assert f"weights of {bundle}: the backbone, its input of" in caplog.text


def test_a_finished_training_goes_on_with_more_epochs_as_if_it_had_not_ended(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {"max_epochs": 2, "schedule": {"name": "constant", "warmup_epochs": 0}}
    config = train_config(dataset, tmp_path / "longer").replaced(**fields)
    train.run(config)
    logs.set_up()
    train.run(config.replaced(max_epochs=4))
    told = capsys.readouterr().err
    assert "resuming after epoch 2" in told
    assert "all 4 epochs are done" in told
    train.run(config.replaced(max_epochs=4, output_uri=str(tmp_path / "whole")))
    weights = [
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("longer", "whole")
    ]
    assert weights[0] == weights[1]
    assert len((tmp_path / "longer" / "history.csv").read_text().splitlines()) == 1 + 4
    train.run(config.replaced(max_epochs=3))  # no more to do
    assert "is complete already" in capsys.readouterr().err


def test_a_finished_training_without_its_last_state_cannot_go_on(
    dataset: Path, tmp_path: Path
) -> None:
    config = train_config(dataset, tmp_path / "out").replaced(max_epochs=1)
    train.run(config)
    (tmp_path / "out" / "last-checkpoint.pt").unlink()
    before = bytes_below(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"last-checkpoint.pt is not there.*--model.pretrained"):
        train.run(config.replaced(max_epochs=2))
    assert bytes_below(tmp_path / "out") == before


def test_more_patience_lets_a_training_go_on_that_has_stopped_early(
    dataset: Path, tmp_path: Path
) -> None:
    config = train_config(dataset, tmp_path / "out").replaced(
        max_epochs=5, early_stopping_patience=1, optimizer={"learning_rate": 1e-12}
    )
    train.run(config)
    history = tmp_path / "out" / "history.csv"
    n_epochs = len(history.read_text().splitlines()) - 1
    assert n_epochs < 5
    train.run(config.replaced(early_stopping_patience=0))
    assert len(history.read_text().splitlines()) - 1 == 5
