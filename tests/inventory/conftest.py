"""Fixtures of the inventory's tests."""

from collections.abc import Callable
from typing import Any

import pytest

from ctc_ray.inventory.events.assemble import Inventory


@pytest.fixture(scope="session")
def as_records() -> Callable[[Inventory], dict[str, dict[str, Any]]]:
    """An inventory in the original's form: id -> images and labels; a missing label is "-1"."""

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
