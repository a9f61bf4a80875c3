"""`ctc train --continue-from`, as it is typed."""

import shutil
from pathlib import Path

import pytest

from ctc_ray import cli
from ctc_ray.models.bundle import load_bundle


def ctc(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main([*words])
    return int(stop.value.code or 0)


def test_a_finished_model_is_trained_further_by_its_name_alone(
    bundle: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rate of almost 0 the new model is the old one: it answers with the same metrics."""
    shutil.copytree(bundle, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    words = ["train", "--continue-from", "model", "--dataset-uri", str(dataset), "--output-uri"]
    rate = ["--optimizer.learning-rate", "1e-30", "--model.freeze-backbone", "--max-epochs", "1"]
    assert ctc(*words, "same", *rate) == 0
    old, new = load_bundle("model"), load_bundle("same")
    assert new.label_space == old.label_space
    assert new.provenance.config["batch_size"] == old.provenance.config["batch_size"] == 8
    assert new.provenance.config["model"]["pretrained"] == str(tmp_path / "model")
    for name, value in old.provenance.metrics.items():
        assert new.provenance.metrics[name] == pytest.approx(value, abs=1e-6), name
    assert ctc(*words, "further") == 0  # nothing else is needed
    assert load_bundle("further").provenance.config["max_epochs"] == 6
    before = (tmp_path / "further" / "_manifest.json").stat().st_mtime_ns
    assert ctc(*words, "further") == 0  # the same command again does nothing
    assert (tmp_path / "further" / "_manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("broken", ["bundle.json", "weights.safetensors"])
def test_a_broken_model_is_one_line_before_anything_is_written(
    bundle: Path,
    dataset: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    broken: str,
) -> None:
    shutil.copytree(bundle, tmp_path / "model")
    (tmp_path / "model" / broken).write_bytes(b"{")
    words = ["--dataset-uri", str(dataset), "--output-uri", str(tmp_path / "out")]
    assert ctc("train", "--continue-from", str(tmp_path / "model"), *words) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("ctc: ")]
    assert len(lines) == 1
    assert broken in lines[0]
    assert not (tmp_path / "out").exists()
