import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray import schemas
from ctc_ray.errors import SchemaError
from ctc_ray.schemas import conform

TARGET = pa.schema(
    [pa.field("id", pa.string(), nullable=False), pa.field("n", pa.int32()), ("x", pa.float32())]
)


def test_conform_orders_casts_and_drops_columns():
    table = pa.table({"x": [1, 2], "other": ["a", "b"], "n": ["3", None], "id": ["a", "b"]})
    result = conform(table, TARGET, where="rows")
    assert result.schema.equals(TARGET)
    assert result.to_pylist() == [{"id": "a", "n": 3, "x": 1.0}, {"id": "b", "n": None, "x": 2.0}]


def test_conform_of_a_conforming_table_changes_nothing():
    table = pa.table({"id": ["a"], "n": [1], "x": [0.5]}).cast(TARGET)
    assert conform(table, TARGET, where="rows").equals(table)


def test_conform_accepts_no_rows():
    assert conform(TARGET.empty_table(), TARGET, where="rows").schema.equals(TARGET)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"], "n": [1]}, r"^a.csv: column 'x' not found; columns are id, n$"),
        ({"id": ["a"], "n": ["many"], "x": [1.0]}, r"^a.csv: .*many"),
        ({"id": ["a"], "n": [2**40], "x": [1.0]}, r"^a.csv: .*1099511627776"),
        ({"id": ["a", None], "n": [1, 2], "x": [1.0, 2.0]}, r"^a.csv: .*'?id'?.* null"),
        ({"id": ["a"], "n": [{"b": 1}], "x": [1.0]}, r"^a.csv: "),
    ],
)
def test_what_does_not_conform_is_an_error_that_names_the_source(columns, message):
    with pytest.raises(SchemaError, match=message) as raised:
        conform(pa.table(columns), TARGET, where="a.csv")
    assert "\n" not in str(raised.value)


def test_columns_per_head_and_per_metadata_field():
    names = schemas.prediction_schema(["species", "count"], ["site"]).names
    assert names[-8:] == [
        "meta_site",
        "failure",
        *("pred_species", "score_species", "probs_species"),
        *("pred_count", "score_count", "probs_count"),
    ]
    assert schemas.shard_schema(["species"], ["site"]).names[8:] == [
        *("meta_site", "label_species", "jpeg", "width", "height", "failure")
    ]
    assert schemas.event_prediction_schema(["a"], ["m"]).names == [
        *("capture_event_id", "n_images", "n_failed"),
        *("location_id", "deployment_id", "captured_at", "meta_m"),
        *("pred_a", "score_a", "margin_a", "probs_a"),
    ]
    assert schemas.event_prediction_schema(["a"], is_top=True).names[-4:] == [
        *("pred_a", "score_a", "margin_a", "top_a")
    ]


def test_observations_hold_a_string_per_head():
    schema = schemas.inventory_schema(["species", "count"])
    observations = [[{"species": "cat", "count": None}, {"species": "dog", "count": "2"}], []]
    column = pa.array(observations, schema.field("observations").type)
    assert column.to_pylist() == observations


heads = st.lists(st.sampled_from(["species", "count", "a b"]), min_size=1, unique=True)
fields = st.lists(st.sampled_from(["site", "label_x", "ä", "meta_meta"]), unique=True)


@given(heads, fields)
def test_every_door_passes_the_image_columns_on_and_names_each_column_once(heads, fields):
    image = schemas.image_fields(fields)
    for door in ("inventory", "planned", "shard", "prediction"):
        schema = getattr(schemas, f"{door}_schema")(heads, fields)
        assert list(schema)[: len(image)] == image
        assert len(set(schema.names)) == len(schema.names)


@given(heads, fields)
def test_metadata_columns_are_found_again(heads, fields):
    schema = schemas.event_prediction_schema(heads, fields)
    assert schemas.meta_columns(schema) == [schemas.meta_column(field) for field in fields]
    assert schemas.meta_fields(schema) == fields


def test_only_what_identifies_an_image_may_not_be_null():
    required = [field.name for field in schemas.image_fields() if not field.nullable]
    assert required == ["image_id", "image_uri", "capture_event_id", "image_index", "n_images"]
    assert not schemas.failure_schema().field("failure").nullable


def test_a_failure_is_written_as_its_code():
    codes = ["missing", "unreadable", "truncated", "too_large", "unsupported", "not_allowed"]
    codes += ["model", "crashed"]
    assert pa.array(list(schemas.Failure), pa.string()).to_pylist() == codes


def test_a_head_has_a_column_for_its_label_prediction_score_and_probabilities():
    assert schemas.label_column("species") == "label_species"
    assert schemas.pred_column("species") == "pred_species"
    assert schemas.score_column("species") == "score_species"
    assert schemas.probs_column("species") == "probs_species"
    assert schemas.margin_column("species") == "margin_species"
    assert schemas.top_column("species") == "top_species"


PACKAGE = Path(__file__).resolve().parents[1] / "ctc_ray"
# Anywhere in a text, so messages count. meta_data is a key of the original's json, and meta_columns
# a field of the configuration.
COLUMN_NAME = re.compile(r"\b(?!meta_data\b|meta_columns\b)(?:label|meta|pred|score|probs|margin)_")


def texts(code: ast.AST) -> Iterator[ast.Constant]:
    """All string literals but docstrings (a string that is a statement of its own)."""
    for node in ast.iter_child_nodes(code):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            yield from texts(node)


def test_column_names_of_heads_and_metadata_are_spelt_in_schemas_alone():
    found = {
        f"{path.relative_to(PACKAGE)}:{text.lineno}: {text.value!r}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "schemas.py"
        for text in texts(ast.parse(path.read_text()))
        if COLUMN_NAME.search(text.value)
    }
    assert not found
