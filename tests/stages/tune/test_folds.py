"""Cross-validation over locations: what each fold learns from and measures, and what it gives."""

import csv
import json
import os
import shutil
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from ctc_ray.config.base import build
from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.config.search import train_config
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError, UsageError
from ctc_ray.runs.executor import InProcess
from ctc_ray.scenes.scenes import write_scenes
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.tune import stage as tune

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

FOLDS = ("fold-0", "fold-1", "fold-2")
HEADS = ("species", "count")
N_LOCATIONS = 12


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes of 12 locations in three folds and a test split."""
    folder = tmp_path_factory.mktemp("folded")
    scenes = write_scenes(str(folder / "scenes"), n_events=72, n_locations=N_LOCATIONS, seed=0)
    create_inventory.run(
        CsvInventoryConfig(
            source_uri=scenes.csv_uri,
            output_uri=str(folder / "inventory"),
            event_column="event",
            image_columns=("image1", "image2", "image3"),
            head_columns=HEADS,
            location_column="location",
        )
    )
    config = CreateDatasetConfig(
        inventory_uri=str(folder / "inventory"),
        output_uri=str(folder / "dataset"),
        heads=HEADS,
        image_root_uri=str(folder / "scenes"),
        split=SplitConfig(folds=len(FOLDS), fractions={"test": 0.2}),
        resize={"smallest_side": 64},
        images_per_unit=20,
        max_failure_fraction=0.5,
    )
    create_dataset.run(config, executor=InProcess())
    return folder / "dataset"


def search_of(dataset: Path, output: Path, **fields: Any) -> TuneConfig:
    values = {
        "dataset_uri": str(dataset),
        "output_uri": str(output),
        "heads": list(HEADS),
        "train": {
            "model": {"image_size": 32},
            "batch_size": 16,
            "max_epochs": 2,
            "image_choice": "all",
            "optimizer": {"backbone_rate": 1.0},
        },
        "space": {"optimizer.learning_rate": {"grid": [0.02, 0.001]}},
        "folds": len(FOLDS),
        "metric": "val_macro_f1",
        "head_weights": {"species": 3},
        "pareto": True,
        "stopping": "none",
        "trials": 1,
        **fields,
    }
    return build(TuneConfig, values, where="test")


@pytest.fixture(scope="module")
def tuned(local_ray: None, folded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of two trials, each of three models."""
    output = tmp_path_factory.mktemp("searched") / "tuned"
    tune.run(search_of(folded, output))
    return output


def trials(tuned: Path) -> list[dict[str, str]]:
    with (tuned / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def provenance(tuned: Path, trial: str, fold: str) -> dict[str, Any]:
    content = json.loads((tuned / "models" / trial / fold / "bundle.json").read_text())
    return content["provenance"]


def usable_rows(dataset: Path, splits: tuple[str, ...] | list[str]) -> list[dict[str, Any]]:
    """Rows of the Parquet files of these splits, read without the code of the package."""
    files = [path for name in splits for path in (dataset / f"split={name}").glob("*.parquet")]
    assert files
    columns = ["image_id", "location_id", "failure", "label_species", "label_count"]
    rows = [row for path in files for row in pq.ParquetFile(path).read(columns).to_pylist()]
    return [row for row in rows if row["failure"] is None]


def labelled(rows: list[dict[str, Any]], head: str) -> Counter[str]:
    return Counter(row[f"label_{head}"] for row in rows if row[f"label_{head}"] is not None)


def objective_by_hand(metrics: dict[str, float]) -> float:
    return (3 * metrics["macro_f1_species"] + metrics["macro_f1_count"]) / 4


@pytest.mark.parametrize("trial", ["00000", "00001"])
def test_no_location_is_learnt_from_and_measured_and_each_image_is_measured_once(
    tuned: Path, folded: Path, trial: str
) -> None:
    measured: Counter[str] = Counter()
    for fold in FOLDS:
        about = provenance(tuned, trial, fold)
        learnt_rows = usable_rows(folded, about["config"]["train_splits"])
        measured_rows = usable_rows(folded, about["config"]["val_splits"])
        learnt, seen = ({row["location_id"] for row in r} for r in (learnt_rows, measured_rows))
        assert learnt
        assert seen
        assert None not in learnt | seen
        assert not learnt & seen
        measured.update(row["image_id"] for row in measured_rows)
        for head in HEADS:
            assert +Counter(about["n_training_images"][head]) == labelled(learnt_rows, head)
            assert about["metrics"][f"n_{head}"] == labelled(measured_rows, head).total()
    everything = usable_rows(folded, FOLDS)
    assert measured == Counter(row["image_id"] for row in everything)
    assert set(measured.values()) == {1}
    places = {row["location_id"] for row in usable_rows(folded, [*FOLDS, "test"])}
    assert len(places) == N_LOCATIONS


def test_mean_and_deviation_are_those_of_the_models(tuned: Path) -> None:
    rows = pq.read_table(tuned / "trials.parquet").to_pylist()
    assert len(rows) == 2
    for row, text in zip(rows, trials(tuned), strict=True):
        models = [provenance(tuned, row["trial"], fold)["metrics"] for fold in FOLDS]
        values = [objective_by_hand(metrics) for metrics in models]
        assert [row[f"val_macro_f1_{fold}"] for fold in FOLDS] == pytest.approx(values, rel=1e-12)
        assert row["val_macro_f1"] == pytest.approx(np.mean(values), rel=1e-12)
        assert row["val_macro_f1_std"] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
        for head in HEADS:
            mean = np.mean([metrics[f"macro_f1_{head}"] for metrics in models])
            assert row[f"val_macro_f1_{head}"] == pytest.approx(mean, rel=1e-12)
        assert (row["folds"], row["epochs"], row["state"]) == (3, 6, "done")
        assert float(text["val_macro_f1"]) == row["val_macro_f1"]
    heads = [[row[f"val_macro_f1_{head}"] for head in HEADS] for row in rows]
    for row, one in zip(rows, heads, strict=True):
        beaten = any(o != one and np.all(np.array(o) >= np.array(one)) for o in heads)
        assert row["pareto"] is not beaten


def test_images_that_a_trial_has_learnt_from_are_counted_over_its_folds(
    tuned: Path, folded: Path
) -> None:
    n_images = len(usable_rows(folded, FOLDS))
    record = json.loads((tuned / "trials" / "00000.json").read_text())
    assert record["n_images"] == 2 * (len(FOLDS) - 1) * n_images
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3]


def test_train_gives_the_metrics_and_weights_of_each_fold(
    tuned: Path, folded: Path, tmp_path: Path
) -> None:
    chosen = build(TrainConfig, yaml.safe_load((tuned / "best.yaml").read_text()), where="best")
    best = max(trials(tuned), key=lambda row: float(row["val_macro_f1"]))["trial"]
    assert (chosen.train_splits, chosen.val_splits) == (FOLDS[1:], FOLDS[:1])
    for fold in FOLDS:
        others = tuple(name for name in FOLDS if name != fold)
        output = tmp_path / fold
        train.run(chosen.replaced(output_uri=str(output), train_splits=others, val_splits=(fold,)))
        about = json.loads((output / "bundle.json").read_text())["provenance"]
        assert about["metrics"] == provenance(tuned, best, fold)["metrics"]
        same = (tuned / "models" / best / fold / "weights.safetensors").read_bytes()
        assert (output / "weights.safetensors").read_bytes() == same


def without_seconds(tuned: Path) -> list[dict[str, str]]:
    return [{**row, "seconds": ""} for row in trials(tuned)]


def test_a_search_that_is_resumed_trains_only_what_is_missing(
    tuned: Path, folded: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(tuned, again)
    for name in ("_manifest.json", "trials/00001.json", "trials.csv"):
        (again / name).unlink()
    shutil.rmtree(again / "models" / "00001" / "fold-2")
    (again / "models" / "00001" / "fold-1" / "_manifest.json").unlink()
    kept = [again / "models" / name for name in ("00000/fold-0", "00000/fold-2", "00001/fold-0")]
    written = [(folder / "weights.safetensors").stat().st_mtime_ns for folder in kept]
    tune.run(search_of(folded, again))
    assert without_seconds(again) == without_seconds(tuned)
    assert written == [(folder / "weights.safetensors").stat().st_mtime_ns for folder in kept]
    assert (again / "best.yaml").read_text().replace(str(again), "") == (
        tuned / "best.yaml"
    ).read_text().replace(str(tuned), "")


@pytest.mark.slow
def test_a_trial_that_is_killed_within_a_fold_goes_on_there(
    tuned: Path, folded: Path, tmp_path: Path
) -> None:
    """The oracle is the search that nobody has killed."""
    output, ended = tmp_path / "tuned", threading.Event()
    killed: list[int] = []
    before: list[int] = []

    def kill_it_once() -> None:
        model = output / "models" / "00000"
        while not ended.wait(0.01):
            for claim in (model / "fold-1" / "_work").glob("claim-*.json"):
                if (model / "fold-1" / "_work" / "checkpoints").exists():
                    before.append((model / "fold-0" / "weights.safetensors").stat().st_mtime_ns)
                    killed.append(json.loads(claim.read_bytes())["process"])
                    os.kill(killed[0], signal.SIGKILL)
                    return

    killer = threading.Thread(target=kill_it_once)
    killer.start()
    try:
        tune.run(search_of(folded, output))
    finally:
        ended.set()
        killer.join()
    assert killed
    assert without_seconds(output) == without_seconds(tuned)
    first = output / "models" / "00000" / "fold-0" / "weights.safetensors"
    assert first.stat().st_mtime_ns == before[0]


def test_a_trial_that_is_behind_after_one_fold_trains_no_other_one(
    local_ray: None, folded: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tuned"
    search = search_of(
        folded,
        output,
        space={"optimizer.learning_rate": {"grid": [1e-9, 0.5]}},  # a start, and a wild one
        metric="val_loss",
        head_weights={},
        pareto=False,
        stopping="asha",
        reduction_factor=2,
    )
    tune.run(search)
    good, bad = trials(output)
    assert (good["state"], good["folds"]) == ("done", "3")
    assert (bad["state"], bad["folds"], bad["val_loss"]) == ("stopped", "1", "")
    first = provenance(output, "00001", "fold-0")["metrics"]["loss"]
    assert (float(bad["val_loss_fold-0"]), bad["val_loss_fold-1"]) == (first, "")
    assert bad["reason"] == "other trials were better after as many folds"
    assert [path.name for path in (output / "models" / "00001").glob("fold-*")] == ["fold-0"]
    (row,) = json.loads((output / "trials" / "00001.json").read_text())["history"]
    assert row["val_loss"] == first


def test_a_fold_that_fails_is_named(local_ray: None, folded: Path, tmp_path: Path) -> None:
    space = {"optimizer.learning_rate": {"grid": [0.01, 1e30]}}
    tune.run(search_of(folded, tmp_path / "tuned", space=space))
    good, failed = trials(tmp_path / "tuned")
    assert (good["state"], failed["state"], failed["val_macro_f1"]) == ("done", "error", "")
    assert failed["reason"].startswith("fold-0: training diverged")


@pytest.mark.slow
def test_folds_of_several_workers_are_trained_one_after_the_other(
    local_ray: None, folded: Path, tmp_path: Path
) -> None:
    space = {"seed": {"choice": [0]}}
    search = search_of(folded, tmp_path / "tuned", folds=FOLDS[:2], space=space)
    several = {**search.train, "workers": 2, "cpu_per_worker": 0.25, "max_epochs": 1}
    tune.run(search.replaced(train=several))
    (row,) = trials(tmp_path / "tuned")
    values = [
        objective_by_hand(provenance(tmp_path / "tuned", "00000", fold)["metrics"])
        for fold in FOLDS[:2]
    ]
    assert (row["state"], row["folds"], row["epochs"]) == ("done", "2", "2")
    assert float(row["val_macro_f1"]) == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folds": 4}, r"folds: .* has no split 'fold-3'; splits are fold-0, fold-1, fold-2, test"),
        (
            {"folds": ["fold-0", "north"]},
            r"has no split 'north'; .*--split.folds of create-dataset",
        ),
        ({"folds": ["fold-0", "std"]}, "val_macro_f1_std would be the name of two columns"),
        ({"folds": ["fold-0", "count"]}, "val_macro_f1_count would be the name of two columns"),
    ],
)
def test_folds_that_the_dataset_has_not_are_one_line_before_work(
    folded: Path, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tune.run(search_of(folded, tmp_path / "tuned", **fields))
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folds": 1}, "folds: expected at least 2"),
        ({"folds": ["_work", "b"]}, "_work cannot be the name of a model's folder"),
        ({"folds": ["a", "a"]}, "a name is given twice"),
        (
            {"folds": 3, "train": {"val_splits": ["a"]}},
            "give folds or val_splits; folds says what each training learns from",
        ),
        (
            {"folds": 3, "space": {"train_splits": {"choice": [["a"]]}}},
            "give folds or train_splits",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(TuneConfig, {"output_uri": "o", **fields}, where="test")


def test_each_fold_learns_from_all_others() -> None:
    base = {"output_uri": "o", "dataset_uri": "d", "heads": ["a"]}
    assert build(TuneConfig, {**base, "folds": "3"}, where="t").folds == FOLDS
    named = build(TuneConfig, {**base, "folds": ["north", "south", "east"]}, where="t")
    for fold, others in {"north": {"south", "east"}, "east": {"north", "south"}}.items():
        made = train_config(named, {}, fold=fold)
        assert (set(made.train_splits), made.val_splits) == (others, (fold,))
    assert train_config(named, {}) == train_config(named, {}, fold="north")
