from pathlib import Path

import pytest
from builders import dataset_config, inventory_config, write_events

from ctc_ray.errors import ConfigError
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_dataset.image_root import require_image_root
from ctc_ray.stages.create_inventory import stage as create_inventory


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in ("nowhere", "file"):
        config = dataset_config("inventory", tmp_path / root, "out")
        with pytest.raises(ConfigError, match=rf"{root}: no such folder; --image-root-uri"):
            require_image_root(config)


def test_a_folder_or_none_is_fine(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path, n_events=2)
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    config = dataset_config(tmp_path / "inventory", tmp_path, "out")
    require_image_root(config)
    require_image_root(config.replaced(image_root_uri=None))


def test_a_wrong_root_is_told_with_the_first_path_before_anything_is_written(
    tmp_path: Path,
) -> None:
    csv_path = write_events(tmp_path, n_events=60)
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    wrong = tmp_path / "images"  # the paths begin with images/, too
    config = dataset_config(tmp_path / "inventory", wrong, tmp_path / "out")
    config = config.replaced(max_failure_fraction=0.9)
    message = (
        rf"none of 48 images .* is there \(of 120\), first {wrong}/images/e000_0\.jpg: is --im"
    )
    with pytest.raises(ConfigError, match=message) as told:
        create_dataset.run(config)
    assert "max-failure-fraction" not in str(told.value)
    assert not (tmp_path / "out").exists()
    require_image_root(config.replaced(image_root_uri=str(tmp_path)))
    require_image_root(config.replaced(max_failure_fraction=1))
    files = sorted((tmp_path / "images").iterdir())
    for path in files[:-1]:  # a root with one image is not wrong
        path.unlink()
    require_image_root(config.replaced(image_root_uri=str(tmp_path)))


@pytest.mark.s3
def test_a_bucket_that_does_not_exist_is_an_error(s3_bucket_uri: str) -> None:
    for root in (f"{s3_bucket_uri}-not/images", f"{s3_bucket_uri}/nowhere"):
        with pytest.raises(ConfigError, match="no such folder"):
            require_image_root(dataset_config("inventory", root, "out"))
