from pathlib import Path

import pytest
from builders import CLASSES, photograph

from ctc_ray.config.demo import DemoConfig
from ctc_ray.stages import demo

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PARTS = ("inventory", "dataset", "model", "predictions", "export")


def test_drawn_scenes_go_through_every_stage(local_ray: None, tmp_path: Path) -> None:
    config = DemoConfig(output_uri=str(tmp_path / "demo"), max_epochs=1, image_size=32)
    manifest = demo.run(config)
    assert manifest.rows_in == manifest.rows_out > 500
    assert manifest.failures == {
        "missing": 1, "unreadable": 1, "truncated": 1, "unsupported": 1
    }  # fmt: skip
    (accuracy,) = (v for k, v in manifest.counts.items() if k.startswith("accuracy on locations"))
    assert [row["head"] for row in accuracy] == ["species", "count"]
    assert all(row["images"] > row["events"] > 20 for row in accuracy)
    assert all((tmp_path / "demo" / part / "manifest.json").is_file() for part in PARTS)
    assert demo.run(config) == manifest


def test_own_class_folders_go_through_every_stage(local_ray: None, tmp_path: Path) -> None:
    for number in range(60):
        path = tmp_path / "own" / CLASSES[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(CLASSES[number % 3], seed=number))
    config = DemoConfig(
        output_uri=str(tmp_path / "demo"), images=str(tmp_path / "own"), max_epochs=1, image_size=32
    )
    manifest = demo.run(config)
    assert manifest.rows_out == 60
    assert [row["head"] for row in manifest.counts["accuracy on test events"]] == ["class"]
    assert "ctc predict" in manifest.counts["run next"]
