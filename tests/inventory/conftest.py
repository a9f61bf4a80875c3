"""Fixtures of the inventory's tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctc_ray.inventory.assembly import Inventory


@pytest.fixture(scope="session")
def goldens(shared_data: Path) -> dict[str, Any]:
    """What the original itself made of its own test files."""
    return json.loads((shared_data.parent / "reference" / "goldens.json").read_text())


@pytest.fixture(scope="session")
def originals(shared_data: Path) -> Path:
    """The folder of the original's test files."""
    return shared_data / "annotations" / "camera_trap_classifier_test_files"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Writes a file and gives its URI."""

    def written(content: str | bytes) -> str:
        path = tmp_path / "source.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return written


@pytest.fixture(scope="session")
def as_records() -> Callable[[Inventory], dict[str, dict[str, Any]]]:
    """An inventory in the form of the original's: id -> images and labels, missing as "-1"."""

    def records(inventory: Inventory) -> dict[str, dict[str, Any]]:
        result: dict[str, dict[str, Any]] = {}
        for row in inventory.table.to_pylist():
            record = result.setdefault(row["capture_event_id"], {"images": []})
            record["images"].append(row["image_uri"])
            record["labels"] = [
                {head: "-1" if label is None else label for head, label in observation.items()}
                for observation in row["observations"]
            ]
        return result

    return records
