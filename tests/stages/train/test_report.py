import io
import subprocess
import sys
from pathlib import Path

import pytest
from builders import train_config
from PIL import Image

from ctc_ray.files import storage
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages.train import report, telling
from ctc_ray.stages.train import stage as train

FILES = (report.PAGE_FILE, report.PNG_FILE)


def test_a_training_leaves_its_report(bundle: Path) -> None:
    html = (bundle / "training.html").read_text()
    assert "metrics of species" in html
    assert "metrics of count" in html
    assert all(f'<th scope="row">{name}</th>' in html for name in ("red", "green", "blue"))
    assert Image.open(io.BytesIO((bundle / "training.png").read_bytes())).format == "PNG"


def test_a_report_is_written_into_a_store_as_on_a_disk(bundle: Path, output_uri: str) -> None:
    for name in ("history.csv", "metrics.json", "bundle.json"):
        storage.write_bytes(storage.join(output_uri, name), (bundle / name).read_bytes())
    report.write(output_uri)
    for name in FILES:
        assert storage.read_bytes(storage.join(output_uri, name)) == (bundle / name).read_bytes()


@pytest.mark.parametrize("start", ["ctc_ray.cli", "ctc_ray.stages.train.stage"])
def test_charts_are_not_imported_before_they_are_drawn(start: str) -> None:
    code = f"import sys, {start}; print({{'altair', 'vl_convert'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("uri", "commands"),
    [
        ("/herd/model", "tensorboard --logdir /herd/model/tensorboard"),
        (
            "s3://herd/a model",
            "aws s3 sync 's3://herd/a model/tensorboard' 'a model/tensorboard' && "
            "tensorboard --logdir 'a model/tensorboard'",
        ),
        (
            "gs://herd/model/",
            "gcloud storage rsync -r gs://herd/model/tensorboard model/tensorboard && "
            "tensorboard --logdir model/tensorboard",
        ),
    ],
)
def test_the_end_says_how_to_view_the_curves(uri: str, commands: str) -> None:
    line = telling.how_to_view(uri)
    assert line == f"see {storage.join(uri, 'training.html')}, or run: {commands}"


def test_a_report_that_cannot_be_drawn_is_a_warning_and_the_model_is_complete(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(training: object) -> bytes:
        raise RuntimeError("no font\nat all")

    monkeypatch.setattr("ctc_ray.reports.training.training_page", fail)
    with caplog.at_level("WARNING"):
        train.run(train_config(dataset, tmp_path / "model").replaced(max_epochs=1))
    assert read_manifest(str(tmp_path / "model"), "bundle")
    uri = tmp_path / "model" / "training.html"
    assert not uri.exists()
    told = [r.getMessage() for r in caplog.records if "training.html" in r.getMessage()]
    assert told == [f"{uri} was not written: no font; the results do not need it"]
