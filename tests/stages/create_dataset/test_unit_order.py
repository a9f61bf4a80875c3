import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders import (
    AtMost,
    StoppedError,
    bytes_below,
    dataset_config,
    inventory_config,
    numbered_rows,
    write_events,
)
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.event_runs import cut_by_events
from ctc_ray.files import parquet
from ctc_ray.runs.append_journal import begin_append
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import manifest_fingerprint, read_manifest
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_dataset.unit_order import BLOCKS_PER_POOL, ROWS_PER_BLOCK, by_hash
from ctc_ray.stages.create_inventory import stage as create_inventory


def laid_order(events: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The rows of an inventory in the order of the units."""
    return np.concatenate(list(by_hash(events, np.arange(len(events))).rows()))


EVENTS = st.lists(st.integers(1, 4), min_size=1, max_size=40)


@given(EVENTS, st.randoms(use_true_random=False))
def test_events_stay_whole_and_their_order_depends_on_their_ids_alone(lengths, random):
    rows = numbered_rows(lengths)
    order = laid_order(rows["capture_event_id"])
    assert sorted(order.tolist()) == list(range(rows.num_rows))
    laid = rows.take(pa.array(order))
    of_event = {}
    for row in laid.to_pylist():
        of_event.setdefault(row["capture_event_id"], []).append(row["row"])
    assert all(numbers == sorted(numbers) for numbers in of_event.values())
    assert list(of_event) == list(dict.fromkeys(laid["capture_event_id"].to_pylist()))
    ids = laid["capture_event_id"].to_pylist()
    assert sum(a != b for a, b in itertools.pairwise(ids)) == len(lengths) - 1
    # the same events in another order of the inventory
    events = list(range(len(lengths)))
    random.shuffle(events)
    parts = [
        rows.filter(pa.array([i == f"e{e}" for i in rows["capture_event_id"].to_pylist()]))
        for e in events
    ]
    other = pa.concat_tables(parts)
    order = laid_order(other["capture_event_id"])
    assert other.take(pa.array(order)).equals(laid)


def test_a_unit_of_a_large_inventory_needs_few_of_its_blocks_and_all_units_all_of_it():
    n_events, length = 30_000, 100  # 3 million rows: 46 blocks, 3 pools
    codes = np.repeat(np.arange(n_events, dtype=np.int32), length)
    names = pa.array([f"event {k:05d}" for k in range(n_events)])
    events = pa.DictionaryArray.from_arrays(pa.array(codes), names)
    order = laid_order(events)
    n_blocks = -(-len(codes) // ROWS_PER_BLOCK)
    blocks = [
        set((order[start:stop] // ROWS_PER_BLOCK).tolist())
        for start, stop in cut_by_events(events.take(pa.array(order)), 10_000)
    ]
    in_one_pool = [found for found in blocks if len(found) <= BLOCKS_PER_POOL + 1]
    assert len(in_one_pool) >= len(blocks) - 2  # two units lie across two pools
    assert set.union(*blocks) == set(range(n_blocks))
    # a unit's images come from all over the inventory
    assert min(max(found) - min(found) for found in blocks) > n_blocks * 2 // 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_events(folder, n_events=30)
    create_inventory.run(inventory_config(folder / "events.csv", folder / "inventory"))
    return folder


def image_ids(dataset: Path) -> list[str]:
    return parquet.read_folder(str(dataset), ["image_id"])["image_id"].to_pylist()


def in_inventory_order(names: list[str], photos: Path) -> list[str]:
    return [name for name in image_ids(photos / "inventory") if name in set(names)]


def test_shards_hold_every_image_once_and_not_in_the_order_of_the_inventory(
    photos: Path, tmp_path: Path
) -> None:
    create_dataset.run(dataset_config(photos / "inventory", photos, tmp_path), executor=InProcess())
    inventory = parquet.read_folder(str(photos / "inventory"))
    columns = ["image_id", "image_uri", "capture_event_id", "image_index", "n_images"]
    laid = parquet.read_folder(str(tmp_path), columns)
    expected = {row["image_id"]: row for row in inventory.select(columns).to_pylist()}
    assert {row["image_id"]: row for row in laid.to_pylist()} == expected
    assert len(laid) == len(expected)
    of_train = parquet.read_folder(str(tmp_path / "split=train"), ["image_id"])
    names = of_train["image_id"].to_pylist()
    assert names != in_inventory_order(names, photos)


def begin_as_before(output: Path, *, plans: str = "_work") -> None:
    """The mark of an earlier version, which had its plan files here."""
    for split in ("train", "val"):
        (output / plans / f"split={split}").mkdir(parents=True)


def test_dataset_that_an_earlier_version_has_begun_goes_on_in_the_order_of_the_inventory(
    photos: Path, tmp_path: Path
) -> None:
    found = []
    for name, n_units in (("whole", 99), ("stopped", 3)):
        config = dataset_config(photos / "inventory", photos, tmp_path / name)
        begin_as_before(tmp_path / name)
        if n_units < 99:
            with pytest.raises(StoppedError):
                create_dataset.run(config, executor=AtMost(n_units))
            assert list((tmp_path / name / "_work" / "split=train").glob("plan-*.arrow"))
        create_dataset.run(config, executor=InProcess())
        found.append(bytes_below(tmp_path / name))
    assert found[0] == found[1]
    ids = image_ids(tmp_path / "stopped")
    inventory = parquet.read_folder(str(photos / "inventory"), ["image_id"])["image_id"]
    assert Counter(ids) == Counter(inventory.to_pylist())
    of_train = parquet.read_folder(str(tmp_path / "stopped" / "split=train"), ["image_id"])
    names = of_train["image_id"].to_pylist()
    assert names == in_inventory_order(names, photos)


def test_append_that_an_earlier_version_has_begun_ends_with_every_event_once(
    tmp_path: Path,
) -> None:
    output, photos, more = tmp_path / "dataset", tmp_path / "photos", tmp_path / "more"
    for n_events, inventory in ((30, tmp_path / "inventory"), (50, more)):
        create_inventory.run(inventory_config(write_events(photos, n_events=n_events), inventory))
    create_dataset.run(dataset_config(tmp_path / "inventory", photos, output), executor=InProcess())
    before = bytes_below(output)
    uri = str(more)
    done = read_manifest(str(output), "dataset").inputs
    name = begin_append(str(output), {uri: manifest_fingerprint(uri)}, done=done)
    begin_as_before(output, plans=f"_work/{name}")
    config = dataset_config(more, photos, output).replaced(append=True)
    with pytest.raises(StoppedError):
        create_dataset.run(config, executor=AtMost(2))
    assert list((output / "_work" / name / "split=train").glob("plan-*.arrow"))
    create_dataset.run(config, executor=InProcess())
    ids = image_ids(output)
    assert Counter(ids) == Counter(image_ids(more))
    after = bytes_below(output)
    shards = [name for name in before if name.startswith("split=")]
    assert {name: after[name] for name in shards} == {name: before[name] for name in shards}
