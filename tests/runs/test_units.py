import itertools
import tempfile
from pathlib import Path

import pyarrow as pa
from builders import numbered_rows, put_file, write_plan
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.columns.event_runs import cut_by_events, run_starts
from ctc_ray.files import storage
from ctc_ray.runs.units import PlanWriter, missing_units, read_unit

# -- cutting ---------------------------------------------------------------------------------------


def test_hand_made_cuts():
    ids = pa.array(list("aabbbccccd"))
    assert run_starts(ids).tolist() == [0, 2, 5, 9]
    assert cut_by_events(ids, 1) == [(0, 2), (2, 5), (5, 9), (9, 10)]
    assert cut_by_events(ids, 4) == [(0, 2), (2, 5), (5, 9), (9, 10)]
    assert cut_by_events(ids, 5) == [(0, 5), (5, 10)]
    assert cut_by_events(ids, 9) == [(0, 9), (9, 10)]
    assert cut_by_events(ids, 10) == [(0, 10)]


def test_no_rows_are_no_units():
    for none in (pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        assert run_starts(none).tolist() == []
        assert cut_by_events(none, 5) == []


lengths = st.lists(st.integers(1, 7), max_size=30)


@given(lengths, st.integers(1, 12))
def test_units_cover_every_row_once_and_never_split_an_event(lengths, images_per_unit):
    rows = numbered_rows(lengths)
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
    ids = numbered_rows(lengths)["capture_event_id"]
    cuts = cut_by_events(ids, images_per_unit)
    sizes = {f"e{event}": n for event, n in enumerate(lengths)}
    for (a, b), (c, _) in itertools.pairwise(cuts):
        assert b - a + sizes[ids[c].as_py()] > images_per_unit


@given(lengths, st.lists(st.integers(0, 60), max_size=5))
def test_chunks_of_the_column_do_not_matter(lengths, places):
    whole = numbered_rows(lengths)["capture_event_id"].combine_chunks()
    ends = sorted({0, len(whole), *(min(place, len(whole)) for place in places)})
    pieces = [whole[a:b] for a, b in itertools.pairwise(ends)]
    chunked = pa.chunked_array(pieces, pa.string())
    assert run_starts(chunked).tolist() == run_starts(whole).tolist()


# -- the plan --------------------------------------------------------------------------------------


def test_units_read_back_as_the_rows_in_their_order(output_uri):
    rows = numbered_rows([3, 1, 4, 1, 5])
    units = write_plan(output_uri, "split=train", rows, 4)
    assert pa.concat_tables([read_unit(output_uri, unit) for unit in units]).equals(rows)
    assert [unit.n_rows for unit in units] == [4, 4, 1, 5]
    assert [unit.name for unit in units] == [f"split=train/part-0000{i}.parquet" for i in range(4)]


def test_many_units_need_several_plan_files(output_uri):
    rows = numbered_rows([1] * 130)
    units = write_plan(output_uri, "images", rows, 1)
    assert len({unit.plan_file for unit in units}) == 3
    assert len({unit.name for unit in units}) == 130
    assert pa.concat_tables([read_unit(output_uri, unit) for unit in units]).equals(rows)


def test_planning_again_gives_the_same_units_and_writes_nothing_twice(output_uri):
    rows = numbered_rows([3, 1, 4])
    units = write_plan(output_uri, "images", rows, 4)
    plan_uri = storage.join(output_uri, units[0].plan_file)
    storage.write_bytes(plan_uri, b"laid by the killed run")
    assert write_plan(output_uri, "images", rows, 4) == units
    assert storage.read_bytes(plan_uri) == b"laid by the killed run"


def test_no_rows_are_no_plan(output_uri):
    assert write_plan(output_uri, "images", numbered_rows([]), 4) == []
    assert not storage.exists(output_uri)


def test_units_are_missing_until_their_file_is_there(output_uri):
    units = write_plan(output_uri, "split=train", numbered_rows([2, 2, 2]), 2)
    assert missing_units(output_uri, units) == units
    put_file(output_uri, units[1].name)
    assert missing_units(output_uri, units) == [units[0], units[2]]
    assert missing_units(output_uri + "/", units) == [units[0], units[2]]
    for unit in units:
        put_file(output_uri, unit.name)
    assert missing_units(output_uri, units) == []


def test_a_file_that_is_being_written_does_not_count(tmp_path):
    units = write_plan(str(tmp_path), "images", numbered_rows([2]), 2)
    put_file(str(tmp_path), "images/.part-00000.parquet.0123456789abcdef")
    assert missing_units(str(tmp_path), units) == units


def test_the_spelling_of_a_local_folder_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    units = write_plan("out", "images", numbered_rows([2, 2]), 2)
    put_file("out", units[0].name)
    for spelling in ("out", "./out/", "out//", str(tmp_path / "out"), f"file://{tmp_path}/out"):
        assert missing_units(spelling, units) == units[1:]


def test_all_units_are_missing_where_there_is_no_folder(output_uri, tmp_path):
    units = write_plan(str(tmp_path / "elsewhere"), "images", numbered_rows([2]), 2)
    assert missing_units(output_uri, units) == units


@given(lengths, st.integers(1, 12), st.lists(st.integers(0, 120), max_size=6))
def test_rows_that_come_in_parts_become_the_same_units(lengths, images_per_unit, places):
    rows = numbered_rows(lengths)
    ends = sorted({0, rows.num_rows, *(min(place, rows.num_rows) for place in places)})
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole = write_plan(one, "images", rows, images_per_unit)
        plan = PlanWriter(other, "images", images_per_unit)
        for a, b in itertools.pairwise(ends):
            plan.add(rows.slice(a, b - a))
        assert plan.finish() == whole
        for unit in whole:
            assert read_unit(one, unit).equals(read_unit(other, unit))


def test_names_of_units_sort_as_their_numbers_beyond_99_999(tmp_path: Path):
    """Units of one plan that passes 100,000, and units appended to a folder of 99,998 files."""
    writer = PlanWriter(str(tmp_path), "split=train", 2, first=99_998)
    writer.add(numbered_rows([2] * 5))
    names = [unit.name for unit in writer.finish()]
    assert len(names) == 5
    assert sorted(["split=train/part-99997.parquet", *names])[1:] == names
