import json
import signal
import subprocess
import sys
import tempfile

import pytest
from builders import files_below, numbered_rows, put_file, write_plan
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.runs.output_folder import Run, RunProgress, is_begun, open_run, run_progress

WORK = {"stage": "predict", "model": {"backbone": "small_cnn", "dropout": 0.0}, "heads": ["a"]}


def begin_work(uri, kind, fields, *, overwrite) -> bool:
    """Begin, and stop at once; whether the work was complete already."""
    with open_run(uri, kind, fields, overwrite=overwrite) as run:
        return isinstance(run, Manifest)


def finish_work(uri, manifest) -> None:
    with open_run(uri, manifest.kind, manifest.config, overwrite=False) as run:
        assert isinstance(run, Run)
        run.finish(manifest)


# -- beginning and finishing -----------------------------------------------------------------------


def test_a_new_folder_begins_and_the_same_work_goes_on(output_uri):
    assert begin_work(output_uri, "bundle", WORK, overwrite=False) is False
    put_file(output_uri, "images/part-00000.parquet")
    assert begin_work(output_uri, "bundle", dict(reversed(WORK.items())), overwrite=False) is False
    assert "images/part-00000.parquet" in files_below(output_uri)


def test_only_a_folder_with_work_of_ours_is_begun(output_uri):
    assert not is_begun(output_uri)
    begin_work(output_uri, "inventory", {"a": 1}, overwrite=False)
    assert is_begun(output_uri)
    storage.write_bytes(f"{output_uri}/file", b"")
    assert not is_begun(f"{output_uri}/file")


def test_work_with_a_manifest_is_complete(output_uri):
    begin_work(output_uri, "bundle", WORK, overwrite=False)
    write_plan(output_uri, "images", numbered_rows([2, 2]), 2)
    put_file(output_uri, "images/part-00000.parquet")
    finish_work(output_uri, Manifest(kind="bundle", config=WORK))
    assert begin_work(output_uri, "bundle", WORK, overwrite=False) is True
    assert read_manifest(output_uri, "bundle").config == WORK


def test_finished_work_keeps_the_results_and_clears_the_plan_away(output_uri):
    begin_work(output_uri, "bundle", WORK, overwrite=False)
    write_plan(output_uri, "images", numbered_rows([2, 2]), 2)
    put_file(output_uri, "images/part-00000.parquet")
    finish_work(output_uri, Manifest(kind="bundle", config=WORK))
    assert files_below(output_uri) == [
        "_manifest.json",
        "_work/work.json",
        "images/part-00000.parquet",
    ]


_KILLED_WHILE_WRITING = """
import json, os, signal, sys
from ctc_ray.files import storage
from ctc_ray.runs.output_folder import open_run

def chunks():
    yield b"half"
    os.kill(os.getpid(), signal.SIGKILL)

folder, fields = sys.argv[1], json.loads(sys.argv[2])
with open_run(folder, "bundle", fields, overwrite=False):
    storage.write_chunks(f"{folder}/images/part-00001.parquet", chunks())
"""


def test_finished_work_has_no_file_that_a_killed_run_has_half_written(tmp_path):
    folder = str(tmp_path)
    command = [sys.executable, "-c", _KILLED_WHILE_WRITING, folder, json.dumps(WORK)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    put_file(folder, "images/part-00000.parquet")
    put_file(folder, "images/.notes")
    of_another = f"images/.part-00002.parquet.{'0' * 32}-12345678"
    put_file(folder, of_another)
    assert len(list((tmp_path / "images").iterdir())) == 4
    finish_work(folder, Manifest(kind="bundle", config=WORK))
    assert files_below(folder) == [
        "_manifest.json",
        "_work/work.json",
        "images/.notes",
        of_another,
        "images/part-00000.parquet",
    ]


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
    put_file(output_uri, "holiday/photo.jpg", b"mine")
    with pytest.raises(ConfigError, match="holds files that no ctc command wrote"):
        begin_work(output_uri, "bundle", WORK, overwrite=overwrite)
    assert files_below(output_uri) == ["holiday/photo.jpg"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_can_be_used(tmp_path, overwrite):
    assert begin_work(str(tmp_path), "bundle", WORK, overwrite=overwrite) is False
    assert files_below(str(tmp_path)) == ["_work/work.json"]


def test_overwriting_deletes_what_an_earlier_run_left_and_nothing_beside_it(output_uri):
    begin_work(output_uri, "bundle", WORK, overwrite=False)
    put_file(output_uri, "images/part-00000.parquet")
    put_file(output_uri + "-2", "mine")
    finish_work(output_uri, Manifest(kind="bundle", config=WORK))
    assert begin_work(output_uri, "bundle", {**WORK, "seed": 7}, overwrite=True) is False
    assert files_below(output_uri) == ["_work/work.json"]
    assert files_below(output_uri + "-2") == ["mine"]


def test_overwriting_nothing_just_begins(output_uri):
    assert begin_work(output_uri, "bundle", WORK, overwrite=True) is False
    assert files_below(output_uri) == ["_work/work.json"]


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
    put_file(output_uri, "weights.safetensors")
    if finished:
        finish_work(output_uri, Manifest(kind="bundle", config=WORK))
    before = files_below(output_uri)
    with pytest.raises(ConfigError, match=r"holds the work of `ctc train`, which `ctc predict`"):
        begin_work(output_uri, "predictions", WORK, overwrite=overwrite)
    assert files_below(output_uri) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_a_file_is_refused(output_uri, overwrite):
    storage.write_bytes(output_uri, b"mine")
    with pytest.raises(ConfigError, match="is a file"):
        begin_work(output_uri, "bundle", WORK, overwrite=overwrite)
    assert storage.read_bytes(output_uri) == b"mine"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"job": 1}'])
def test_a_work_file_of_another_program_is_refused(output_uri, content):
    put_file(output_uri, "_work/work.json", content)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="no ctc command wrote this"):
            begin_work(output_uri, "bundle", WORK, overwrite=overwrite)
    assert files_below(output_uri) == ["_work/work.json"]


# -- what is begun ---------------------------------------------------------------------------------


def test_begun_work_counts_results_beside_the_plan(output_uri):
    assert run_progress(output_uri) is None
    begin_work(output_uri, "predictions", WORK, overwrite=False)
    assert run_progress(output_uri) == RunProgress("predictions", 0, None)
    units = write_plan(output_uri, "images", numbered_rows([1] * 70), 1)  # two plan files
    for unit in units[:5]:
        put_file(output_uri, unit.name)
    put_file(output_uri, "images/.part-00005.parquet.0a1b")  # a killed run's
    put_file(output_uri, "events/part-00000.parquet")  # a unit is done when its images are there
    assert run_progress(output_uri) == RunProgress("predictions", 5, 70)


def test_begun_work_without_a_plan_counts_all_results(output_uri):
    begin_work(output_uri, "trials", WORK, overwrite=False)
    put_file(output_uri, "models/trial-0/bundle.json")
    put_file(output_uri, "_work/checkpoint")
    assert run_progress(output_uri) == RunProgress("trials", 1, None)


def test_overwriting_deletes_nothing_behind_a_link(tmp_path):
    photo = tmp_path / "photos" / "a.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"mine")
    out = tmp_path / "out"
    begin_work(str(out), "bundle", WORK, overwrite=False)
    (out / "link").symlink_to(photo.parent)
    begin_work(str(out), "bundle", {**WORK, "seed": 7}, overwrite=True)
    assert photo.read_bytes() == b"mine"


def test_overwriting_leaves_no_empty_folder(tmp_path):
    out = tmp_path / "out"
    begin_work(str(out), "bundle", WORK, overwrite=False)
    put_file(str(out), "split=train/deep/part-00000.parquet")
    begin_work(str(out), "bundle", {**WORK, "seed": 7}, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["_work"]


@pytest.mark.parametrize("name", ["inputs", "image_root_uri"])
def test_overwrite_never_deletes_an_input_behind_a_link(tmp_path, name):
    out = tmp_path / "out"
    begin_work(str(out), "bundle", WORK, overwrite=False)
    (out / "photos").mkdir()
    link = tmp_path / "link"
    link.symlink_to(out / "photos")
    named = {"inputs": {str(link): "f"}} if name == "inputs" else {name: str(link)}
    with pytest.raises(ConfigError, match="would delete the input"):
        begin_work(str(out), "bundle", {**WORK, **named}, overwrite=True)
    assert (out / "_work" / "work.json").is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_a_broken_link_is_one_clear_line(tmp_path, overwrite):
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"out: is a link to .*gone, which does not exist"):
        begin_work(str(out), "bundle", WORK, overwrite=overwrite)


def test_a_finished_output_whose_work_folder_cannot_be_written_is_complete(tmp_path, monkeypatch):
    uri = str(tmp_path / "out")
    begin_work(uri, "bundle", WORK, overwrite=False)
    finish_work(uri, Manifest(kind="bundle", config=WORK))
    put_file(uri, "_work/plan/plan-00000.arrow")  # what a killed run has left

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "create_bytes", refused)
    assert begin_work(uri, "bundle", WORK, overwrite=False) is True


@pytest.mark.parametrize("overwrite", [False, True])
def test_work_of_a_kind_of_a_later_version_is_refused(output_uri, overwrite):
    work = b'{"kind": "later", "fingerprint": "f", "work": {}}'
    put_file(output_uri, "_work/work.json", work)
    with pytest.raises(ConfigError, match="holds the work of `another ctc`"):
        begin_work(output_uri, "bundle", WORK, overwrite=overwrite)
