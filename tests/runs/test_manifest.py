import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray import __version__
from ctc_ray.errors import ConfigError, IncompleteDataError, SchemaError
from ctc_ray.runs.manifest import (
    Manifest,
    fingerprint,
    is_complete,
    manifest_fingerprint,
    read_manifest,
)
from ctc_ray.schemas import SCHEMA_VERSION

MANIFEST = Manifest(
    kind="dataset",
    config={"resize": {"quality": 75}, "heads": ["species"]},
    inputs={"s3://bucket/inventory": "0" * 64},
    rows_in=3,
    rows_out=3,
    failures={"missing": 1},
    classes={"species": ["cat", "dog"], "count": ["1"]},
    meta=["site"],
    summary={"train": {"images": 3, "events": 2}},
)


def test_what_is_written_reads_back(tmp_path):
    MANIFEST.write(str(tmp_path))
    manifest = read_manifest(str(tmp_path), "dataset")
    assert manifest == MANIFEST
    assert manifest.heads == ("species", "count")
    assert (manifest.schema_version, manifest.ctc_version) == (SCHEMA_VERSION, __version__)


def test_the_same_work_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        MANIFEST.write(str(tmp_path / name))
    assert (tmp_path / "a/_manifest.json").read_bytes() == (
        tmp_path / "b/_manifest.json"
    ).read_bytes()
    assert manifest_fingerprint(str(tmp_path / "a")) == manifest_fingerprint(str(tmp_path / "b"))


def test_other_data_have_another_fingerprint(tmp_path):
    MANIFEST.write(str(tmp_path / "a"))
    MANIFEST.model_copy(update={"rows_out": 2}).write(str(tmp_path / "b"))
    assert manifest_fingerprint(str(tmp_path / "a")) != manifest_fingerprint(str(tmp_path / "b"))


def test_a_folder_without_manifest_is_not_complete(tmp_path):
    assert not is_complete(str(tmp_path))
    MANIFEST.write(str(tmp_path))
    assert is_complete(str(tmp_path))


@pytest.mark.parametrize("name", ["empty", "not-there"])
def test_unfinished_data_are_an_error_that_names_the_command(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(IncompleteDataError, match=r"no _manifest.json.*`ctc create-dataset`"):
        read_manifest(str(tmp_path / name), "dataset")


def test_another_kind_of_data_is_an_error_that_names_both(tmp_path):
    MANIFEST.write(str(tmp_path))
    with pytest.raises(ConfigError, match=r"holds dataset, expected bundle \(`ctc train`\)"):
        read_manifest(str(tmp_path), "bundle")
    assert read_manifest(str(tmp_path), "bundle", "dataset").kind == "dataset"
    assert read_manifest(str(tmp_path)).kind == "dataset"


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, SCHEMA_VERSION - 1, None, "1"])
def test_another_schema_version_is_an_error(tmp_path, version):
    value = {**MANIFEST.model_dump(mode="json"), "schema_version": version}
    (tmp_path / "_manifest.json").write_text(json.dumps(value))
    with pytest.raises(SchemaError, match=rf"schema version {version}, this ctc reads"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "schema version None"),
        (b'{"schema_version": 1, "kind": "dataset"}', "not a manifest: config: Field required"),
        (b'{"schema_version": 1, "kind": "soup", "config": {}}', "not a manifest: kind: "),
        (
            b'{"schema_version": 1, "kind": "bundle", "config": {}, "x": 1}',
            "not a manifest: x: Extra inputs",
        ),
    ],
)
def test_what_is_no_manifest_is_an_error_in_one_line(tmp_path, content, message):
    (tmp_path / "_manifest.json").write_bytes(content)
    with pytest.raises(SchemaError, match=message) as raised:
        read_manifest(str(tmp_path))
    assert str(raised.value).startswith(str(tmp_path / "_manifest.json"))
    assert "\n" not in str(raised.value)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["x", "y", "ü"]), values))
def test_the_order_of_keys_does_not_change_a_fingerprint_and_json_keeps_it(value):
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)
    assert fingerprint(json.loads(json.dumps(value))) == fingerprint(value)


def test_a_fingerprint_is_the_sha256_of_the_compact_json():
    assert fingerprint({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"}) != fingerprint({"a": [1]})
