import itertools
import json
import tempfile

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray import storage
from ctc_ray.errors import ConfigError
from ctc_ray.manifest import Manifest, read_manifest
from ctc_ray.units import (
    Begun,
    begin_work,
    begun_work,
    cut_by_events,
    event_starts,
    finish_work,
    missing_units,
    read_unit,
    write_plan,
)

WORK = {"stage": "predict", "model": {"backbone": "small_cnn", "dropout": 0.0}, "heads": ["a"]}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def output_uri(request, tmp_path) -> str:
    if request.param == "s3":
        return request.getfixturevalue("s3_bucket_uri") + "/out"
    return str(tmp_path / "out")


def put(output_uri: str, name: str, content: bytes = b"x") -> None:
    storage.write_bytes(storage.join(output_uri, name), content)


def left(output_uri: str) -> list[str]:
    return [uri.removeprefix(output_uri + "/") for uri in storage.list_files(output_uri)]


def rows_of(lengths: list[int]) -> pa.Table:
    """Events of these many images, each row numbered."""
    ids = [f"e{event}" for event, n in enumerate(lengths) for _ in range(n)]
    return pa.table({"capture_event_id": ids, "row": range(len(ids))})


# -- cutting ---------------------------------------------------------------------------------------


def test_hand_made_cuts():
    ids = pa.array(list("aabbbccccd"))
    assert event_starts(ids).tolist() == [0, 2, 5, 9]
    assert cut_by_events(ids, 1) == [(0, 2), (2, 5), (5, 9), (9, 10)]
    assert cut_by_events(ids, 4) == [(0, 2), (2, 5), (5, 9), (9, 10)]
    assert cut_by_events(ids, 5) == [(0, 5), (5, 10)]
    assert cut_by_events(ids, 9) == [(0, 9), (9, 10)]
    assert cut_by_events(ids, 10) == [(0, 10)]


def test_no_rows_are_no_units():
    for none in (pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        assert event_starts(none).tolist() == []
        assert cut_by_events(none, 5) == []


lengths = st.lists(st.integers(1, 7), max_size=30)


@given(lengths, st.integers(1, 12))
def test_units_cover_every_row_once_and_never_split_an_event(lengths, images_per_unit):
    rows = rows_of(lengths)
    ids = rows["capture_event_id"]
    cuts = cut_by_events(ids, images_per_unit)
    assert [row for a, b in cuts for row in range(a, b)] == list(range(len(ids)))
    units = [ids[a:b].to_pylist() for a, b in cuts]
    for place, unit in enumerate(units):
        assert unit
        assert len(unit) <= images_per_unit or len(set(unit)) == 1
        assert not any(set(unit) & set(other) for other in units[place + 1 :])


@given(lengths, st.integers(1, 12))
def test_a_unit_takes_as_many_events_as_fit(lengths, images_per_unit):
    ids = rows_of(lengths)["capture_event_id"]
    cuts = cut_by_events(ids, images_per_unit)
    sizes = {f"e{event}": n for event, n in enumerate(lengths)}
    for (a, b), (c, _) in itertools.pairwise(cuts):
        assert b - a + sizes[ids[c].as_py()] > images_per_unit


@given(lengths, st.lists(st.integers(0, 60), max_size=5))
def test_chunks_of_the_column_do_not_matter(lengths, places):
    whole = rows_of(lengths)["capture_event_id"].combine_chunks()
    ends = sorted({0, len(whole), *(min(place, len(whole)) for place in places)})
    pieces = [whole[a:b] for a, b in itertools.pairwise(ends)]
    chunked = pa.chunked_array(pieces, pa.string())
    assert event_starts(chunked).tolist() == event_starts(whole).tolist()


# -- the plan --------------------------------------------------------------------------------------


def test_units_read_back_as_the_rows_in_their_order(output_uri):
    rows = rows_of([3, 1, 4, 1, 5])
    units = write_plan(output_uri, "split=train", rows, 4)
    assert pa.concat_tables([read_unit(output_uri, unit) for unit in units]).equals(rows)
    assert [unit.n_rows for unit in units] == [4, 4, 1, 5]
    assert [unit.name for unit in units] == [f"split=train/part-0000{i}.parquet" for i in range(4)]


def test_many_units_need_several_plan_files(output_uri):
    rows = rows_of([1] * 130)
    units = write_plan(output_uri, "images", rows, 1)
    assert len({unit.plan_file for unit in units}) == 3
    assert len({unit.name for unit in units}) == 130
    assert pa.concat_tables([read_unit(output_uri, unit) for unit in units]).equals(rows)


def test_planning_again_gives_the_same_units_and_writes_nothing_twice(output_uri):
    rows = rows_of([3, 1, 4])
    units = write_plan(output_uri, "images", rows, 4)
    plan_uri = storage.join(output_uri, units[0].plan_file)
    storage.write_bytes(plan_uri, b"laid by the killed run")
    assert write_plan(output_uri, "images", rows, 4) == units
    assert storage.read_bytes(plan_uri) == b"laid by the killed run"


def test_no_rows_are_no_plan(output_uri):
    assert write_plan(output_uri, "images", rows_of([]), 4) == []
    assert not storage.exists(output_uri)


def test_units_are_missing_until_their_file_is_there(output_uri):
    units = write_plan(output_uri, "split=train", rows_of([2, 2, 2]), 2)
    assert missing_units(output_uri, units) == units
    put(output_uri, units[1].name)
    assert missing_units(output_uri, units) == [units[0], units[2]]
    assert missing_units(output_uri + "/", units) == [units[0], units[2]]
    for unit in units:
        put(output_uri, unit.name)
    assert missing_units(output_uri, units) == []


def test_a_file_that_is_being_written_does_not_count(tmp_path):
    units = write_plan(str(tmp_path), "images", rows_of([2]), 2)
    put(str(tmp_path), "images/.part-00000.parquet.0123456789abcdef")
    assert missing_units(str(tmp_path), units) == units


def test_the_spelling_of_a_local_folder_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    units = write_plan("out", "images", rows_of([2, 2]), 2)
    put("out", units[0].name)
    for spelling in ("out", "./out/", "out//", str(tmp_path / "out"), f"file://{tmp_path}/out"):
        assert missing_units(spelling, units) == units[1:]


def test_all_units_are_missing_where_there_is_no_folder(output_uri, tmp_path):
    units = write_plan(str(tmp_path / "elsewhere"), "images", rows_of([2]), 2)
    assert missing_units(output_uri, units) == units


# -- beginning and finishing -----------------------------------------------------------------------


def test_a_new_folder_begins_and_the_same_work_goes_on(output_uri):
    assert begin_work(output_uri, "bundle", WORK, overwrite=False) is False
    put(output_uri, "images/part-00000.parquet")
    assert begin_work(output_uri, "bundle", dict(reversed(WORK.items())), overwrite=False) is False
    assert "images/part-00000.parquet" in left(output_uri)


def test_work_with_a_manifest_is_complete(output_uri):
    begin_work(output_uri, "bundle", WORK, overwrite=False)
    write_plan(output_uri, "images", rows_of([2, 2]), 2)
    put(output_uri, "images/part-00000.parquet")
    finish_work(output_uri, Manifest(kind="bundle", config=WORK))
    assert begin_work(output_uri, "bundle", WORK, overwrite=False) is True
    assert read_manifest(output_uri, "bundle").config == WORK


def test_finished_work_keeps_the_results_and_clears_the_plan_away(output_uri):
    begin_work(output_uri, "bundle", WORK, overwrite=False)
    write_plan(output_uri, "images", rows_of([2, 2]), 2)
    put(output_uri, "images/part-00000.parquet")
    finish_work(output_uri, Manifest(kind="bundle", config=WORK))
    assert left(output_uri) == ["_work/work.json", "images/part-00000.parquet", "manifest.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "train"}, r'stage: "predict" there, "train" now\)'),
        ({"model": {"backbone": "resnet18", "dropout": 0.0}}, r'model.backbone: "small_cnn" there'),
        ({"model": {"dropout": 0.5}}, r"model.dropout: 0.0 there, 0.5 now and 1 more\)"),
        ({"heads": ["b"]}, r'heads: \["a"\] there, \["b"\] now\)'),
        ({"seed": None}, r"seed: nothing there, null now\)"),
        ({"model": {}}, r"model: nothing there, {} now and 2 more\)"),
    ],
)
def test_work_of_another_configuration_is_refused_and_the_field_named(output_uri, change, message):
    begin_work(output_uri, "bundle", WORK, overwrite=False)
    with pytest.raises(ConfigError, match=message) as raised:
        begin_work(output_uri, "bundle", {**WORK, **change}, overwrite=False)
    assert str(raised.value).startswith(output_uri)
    assert "--overwrite" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_only_what_differs_is_named_when_json_changes_the_type():
    with pytest.raises(ConfigError, match=r"\(seed: 1 there, 2 now\)"):
        _begin_twice({"heads": ("a", "b"), "seed": 1}, {"heads": ("a", "b"), "seed": 2})


def _begin_twice(first: dict, second: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        begin_work(folder, "bundle", first, overwrite=False)
        begin_work(folder, "bundle", second, overwrite=False)


settings = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 2), st.sampled_from(["", "1", "a"])),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
works = st.dictionaries(st.sampled_from("abc"), settings, max_size=3)


@given(works, works)
def test_work_goes_on_exactly_if_its_json_is_the_same(first, second):
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    if same:
        _begin_twice(first, second)
        return
    with pytest.raises(ConfigError, match=r" there, .* now"):
        _begin_twice(first, second)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_foreign_files_is_refused_and_left_as_it_is(output_uri, overwrite):
    put(output_uri, "holiday/photo.jpg", b"mine")
    with pytest.raises(ConfigError, match="holds files that no ctc command wrote"):
        begin_work(output_uri, "bundle", WORK, overwrite=overwrite)
    assert left(output_uri) == ["holiday/photo.jpg"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_can_be_used(tmp_path, overwrite):
    assert begin_work(str(tmp_path), "bundle", WORK, overwrite=overwrite) is False
    assert left(str(tmp_path)) == ["_work/work.json"]


def test_overwriting_deletes_what_an_earlier_run_left_and_nothing_beside_it(output_uri):
    begin_work(output_uri, "bundle", WORK, overwrite=False)
    put(output_uri, "images/part-00000.parquet")
    put(output_uri + "-2", "mine")
    finish_work(output_uri, Manifest(kind="bundle", config=WORK))
    assert begin_work(output_uri, "bundle", {**WORK, "seed": 7}, overwrite=True) is False
    assert left(output_uri) == ["_work/work.json"]
    assert left(output_uri + "-2") == ["mine"]


def test_overwriting_nothing_just_begins(output_uri):
    assert begin_work(output_uri, "bundle", WORK, overwrite=True) is False
    assert left(output_uri) == ["_work/work.json"]


@pytest.mark.parametrize("output", ["data", "data/inventory"])
def test_overwrite_never_deletes_an_input(tmp_path, output):
    inventory, other = tmp_path / "data" / "inventory", tmp_path / output
    begin_work(str(inventory), "bundle", {"a": 1}, overwrite=False)
    work = {"a": 2, "inputs": {str(inventory): "f"}}
    with pytest.raises(ConfigError, match="would delete the input"):
        begin_work(str(other), "bundle", work, overwrite=True)
    assert (inventory / "_work" / "work.json").is_file()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("finished", [False, True])
def test_work_of_another_command_is_never_overwritten(output_uri, overwrite, finished):
    begin_work(output_uri, "bundle", WORK, overwrite=False)
    put(output_uri, "weights.safetensors")
    if finished:
        finish_work(output_uri, Manifest(kind="bundle", config=WORK))
    before = left(output_uri)
    with pytest.raises(ConfigError, match=r"holds the work of `ctc train`, which `ctc predict`"):
        begin_work(output_uri, "predictions", WORK, overwrite=overwrite)
    assert left(output_uri) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_a_file_is_refused(output_uri, overwrite):
    storage.write_bytes(output_uri, b"mine")
    with pytest.raises(ConfigError, match="is a file"):
        begin_work(output_uri, "bundle", WORK, overwrite=overwrite)
    assert storage.read_bytes(output_uri) == b"mine"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"job": 1}'])
def test_a_work_file_of_another_program_is_refused(output_uri, content):
    put(output_uri, "_work/work.json", content)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="no ctc command wrote this"):
            begin_work(output_uri, "bundle", WORK, overwrite=overwrite)
    assert left(output_uri) == ["_work/work.json"]


# -- what is begun ---------------------------------------------------------------------------------


def test_begun_work_counts_results_beside_the_plan(output_uri):
    assert begun_work(output_uri) is None
    begin_work(output_uri, "predictions", WORK, overwrite=False)
    assert begun_work(output_uri) == Begun("predictions", 0, None)
    units = write_plan(output_uri, "images", rows_of([1] * 70), 1)  # two plan files
    for unit in units[:5]:
        put(output_uri, unit.name)
    put(output_uri, "images/.part-00005.parquet.0a1b")  # a killed run's
    put(output_uri, "events/part-00000.parquet")  # a unit is done when its images are there
    assert begun_work(output_uri) == Begun("predictions", 5, 70)


def test_begun_work_without_a_plan_counts_all_results(output_uri):
    begin_work(output_uri, "trials", WORK, overwrite=False)
    put(output_uri, "models/trial-0/bundle.json")
    put(output_uri, "_work/checkpoint")
    assert begun_work(output_uri) == Begun("trials", 1, None)
