"""What `ray job submit --working-dir .` packs: the code and the settings, never images or results.

Ray's own function packs a copy of the checkout's names; the results in it are real ones.
"""

import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
from builders import dataset_in_process, inventory_config, untrained_bundle, write_events
from ray._private.runtime_env.packaging import create_package

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.runs.executor import InProcess
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict

CHECKOUT = Path(__file__).resolve().parents[2]
CODE = ("ctc_ray", "jobs", "cluster", "docs", "tests")
SETTINGS = ("programmes/serengeti/train.yaml", "settings/mapping.csv", "mine.yaml", "classes.json")


def outputs_of_docs() -> set[str]:
    """The folders in the checkout that README and docs write, if one runs what they say there."""
    text = "".join(p.read_text() for p in (CHECKOUT / "README.md", *CHECKOUT.glob("docs/*.md")))
    found = set(re.findall(r"output[-_]uri:? +([\w.:/-]+)", text))
    return {"ctc-demo", "photos", *(name for name in found if not name.startswith("s3:"))}


def code() -> set[str]:
    files = (p for room in CODE for p in (CHECKOUT / room).rglob("*") if p.is_file())
    return {
        str(p.relative_to(CHECKOUT)) for p in files if p.suffix in (".py", ".html", ".yaml", ".md")
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of every command's results."""
    made = tmp_path_factory.mktemp("results")
    csv_path = write_events(made / "photographs")
    create_inventory.run(inventory_config(csv_path, made / "inventory"))
    dataset_in_process(made / "inventory", made / "photographs", made / "dataset")
    bundle = str(untrained_bundle(made / "model"))
    config = PredictConfig(
        bundle_uri=bundle,
        output_uri=str(made / "predictions"),
        images_uri=str(made / "photographs" / "images"),
        export=("csv", "json"),
    )
    predict.run(config, executor=InProcess())
    (made / "exported").mkdir()
    (made / "exported" / "model.onnx").touch()
    return made


def pack(checkout: Path, target: Path) -> set[str]:
    create_package(str(checkout), target, include_gitignore=True)
    return set(ZipFile(target).namelist())


def test_the_folders_of_the_readme_are_left_here_and_code_and_settings_are_sent(
    results: Path, tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    outputs = outputs_of_docs()
    assert {"inventory", "dataset", "model", "predictions", "exported", "ctc-demo"} <= outputs
    sent = code() | set(SETTINGS)
    for name in sent:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    for name in (".gitignore", ".rayignore"):
        shutil.copy(CHECKOUT / name, checkout)
    for name in outputs:
        shutil.copytree(results, checkout / name)
    (checkout / "sheet.png").touch()
    packed = pack(checkout, tmp_path / "packed.zip")
    assert {name for name in packed if name.split("/")[0] in outputs} == set()
    assert packed == sent | {".gitignore", ".rayignore"}


def test_results_and_images_in_folders_of_other_names_are_left_here(
    results: Path, tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(results, checkout / "my" / "season 2")
    for name in ("IMG_1.JPG", "a.jpeg", "b.Png", "clip.MP4", "model.pt2", "old.pth"):
        (checkout / name).touch()
    shutil.copy(CHECKOUT / ".rayignore", checkout)
    names = {name.rpartition("/")[2] for name in pack(checkout, tmp_path / "packed.zip")}
    small = {"bundle.json", "labels.json", "README.md", "history.csv"}
    tables = {"predictions.csv", "predictions.json", "events.csv"}  # may also be a source
    assert names <= small | tables | {".rayignore"}
