import errno
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctc_ray.errors import SchemaError
from ctc_ray.files import parquet, storage

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]})


def test_a_table_reads_back(folder_uri):
    uri = storage.join(folder_uri, "a.parquet")
    parquet.write_table(uri, TABLE, rows_per_group=2)
    assert parquet.read_table(uri).equals(TABLE)
    assert parquet.read_table(uri, ["b"]).column_names == ["b"]
    with parquet.open_parquet(uri) as file:
        assert file.num_row_groups == 2


def test_each_table_becomes_a_row_group(folder_uri):
    uri = storage.join(folder_uri, "a.parquet")
    groups = [TABLE, TABLE.slice(0, 0), TABLE.slice(1)]
    storage.write_bytes(uri, parquet.row_group_bytes(groups, metadata={"unit": "7"}))
    with parquet.open_parquet(uri) as file:
        assert [file.read_row_group(i).num_rows for i in range(file.num_row_groups)] == [3, 0, 2]
        assert file.schema_arrow.metadata[b"unit"] == b"7"
    assert parquet.read_table(uri).num_rows == 5


def test_a_folder_of_tables_is_read_in_order_without_what_begins_with_an_underscore(folder_uri):
    for name, rows in (("b", TABLE.slice(1)), ("a", TABLE.slice(0, 1)), ("_failures", TABLE)):
        parquet.write_table(storage.join(folder_uri, f"{name}.parquet"), rows)
    parquet.write_table(storage.join(folder_uri, "_work", "plan.parquet"), TABLE)
    storage.write_bytes(storage.join(folder_uri, "_manifest.json"), b"{}")
    assert parquet.read_folder(folder_uri).equals(TABLE)


def test_what_is_no_parquet_is_a_schema_error(folder_uri):
    uri = storage.join(folder_uri, "a.parquet")
    for content in (b"", b"no parquet at all", b"PAR1"):
        storage.write_bytes(uri, content)
        with pytest.raises(SchemaError, match=re.escape(uri)):
            parquet.open_parquet(uri)


def test_the_same_table_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        parquet.write_table(str(tmp_path / name), TABLE)
        content = parquet.row_group_bytes([TABLE, TABLE])
        storage.write_bytes(str(tmp_path / f"{name}-groups"), content)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a-groups").read_bytes() == (tmp_path / "b-groups").read_bytes()


def test_parts_become_one_file_with_few_row_groups(folder_uri):
    uri = storage.join(folder_uri, "a.parquet")
    parts = [pa.table({"n": range(start, start + 1000)}) for start in range(0, 150_000, 1000)]
    parquet.write_parts(uri, parts[0].schema, iter(parts))
    assert parquet.read_table(uri)["n"].to_pylist() == list(range(150_000))
    with parquet.open_parquet(uri) as file:
        assert file.num_row_groups == 3
    parquet.write_parts(uri, TABLE.schema, iter(()))
    assert parquet.read_table(uri).equals(TABLE.slice(0, 0))


def test_parts_that_break_off_leave_the_file_as_it_was(folder_uri):
    uri = storage.join(folder_uri, "a.parquet")
    parquet.write_table(uri, TABLE)

    def broken():
        yield TABLE
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        parquet.write_parts(uri, TABLE.schema, broken())
    assert parquet.read_table(uri).equals(TABLE)
    assert list(storage.list_files(folder_uri)) == [uri]


def test_a_raw_column_is_stored_as_it_is(tmp_path):
    rows = pa.table({"jpeg": [b"0" * 10_000], "text": ["0" * 10_000]})
    storage.write_bytes(str(tmp_path / "a"), parquet.row_group_bytes([rows], raw_column="jpeg"))
    group = pq.read_metadata(tmp_path / "a").row_group(0)
    assert [group.column(i).compression for i in (0, 1)] == ["UNCOMPRESSED", "ZSTD"]
    assert parquet.read_table(str(tmp_path / "a")).equals(rows)


def test_a_table_that_is_not_there_cannot_be_read(folder_uri):
    with pytest.raises(FileNotFoundError):
        parquet.open_parquet(storage.join(folder_uri, "no.parquet"))


def test_each_batch_is_read_by_itself(folder_uri):
    uri = storage.join(folder_uri, "a.arrow")
    batches = [TABLE, TABLE.slice(1, 1), pa.concat_tables([TABLE, TABLE])]
    parquet.write_batches(uri, batches)
    assert [parquet.read_batch(uri, i).to_pylist() for i in (0, 1, 2)] == [
        batch.to_pylist() for batch in batches
    ]
    assert parquet.count_batches(uri) == 3


def test_encodings_change_the_bytes_and_no_value(tmp_path):
    rows = pa.table(
        {
            "name": [f"IMG_{k}.JPG" for k in range(100)],
            "time": pa.array([k // 3 for k in range(99)] + [None], pa.timestamp("us")),
            "boxes": [[{"x": 0.5, "kind": "animal"}], [], None, [{"x": None, "kind": None}]] * 25,
            "counts": [[1, 2]] * 100,
        }
    )
    encodings = parquet.Encodings(no_dictionary=["name"], delta=["time"], statistics=["time"])
    parquet.write_table(str(tmp_path / "rows.parquet"), rows, encodings=encodings)
    assert parquet.read_table(str(tmp_path / "rows.parquet")).equals(rows)
    with parquet.open_parquet(str(tmp_path / "rows.parquet")) as file:
        group = file.metadata.row_group(0)
        columns = [group.column(place) for place in range(group.num_columns)]
    encoded = {column.path_in_schema: column.encodings for column in columns}
    assert "RLE_DICTIONARY" not in encoded["name"]
    assert "DELTA_BINARY_PACKED" in encoded["time"]
    for path in ("boxes.list.element.kind", "boxes.list.element.x", "counts.list.element"):
        assert "RLE_DICTIONARY" in encoded[path]
    assert [c.path_in_schema for c in columns if c.is_stats_set] == ["time"]


def test_a_damaged_page_is_a_schema_error_that_names_the_file(tmp_path):
    uri = str(tmp_path / "a.parquet")
    numbers = pa.table({"a": pa.array(np.random.default_rng(0).integers(0, 1 << 40, 5000))})
    content = bytearray(parquet.row_group_bytes([numbers]))
    with parquet.open_parquet(_written(uri, content)) as file:
        begin = file.metadata.row_group(0).column(0).data_page_offset
    content[begin : begin + 40] = bytes(40)
    with parquet.open_parquet(_written(uri, content)) as file:
        with pytest.raises(SchemaError, match=f"^{re.escape(uri)}: damaged: ") as raised:
            parquet.read_row_group(file, uri, 0, ["a"])
        assert str(raised.value).isprintable()
    with pytest.raises(SchemaError, match="damaged"):
        parquet.read_table(uri)


def test_a_disk_that_fails_is_no_damaged_file(tmp_path, monkeypatch):
    uri = str(tmp_path / "a.parquet")
    parquet.write_table(uri, TABLE)

    def fail(*_):
        raise OSError(errno.EIO, "no answer", uri)

    with parquet.open_parquet(uri) as file:
        monkeypatch.setattr(storage, "operation", fail)
        with pytest.raises(OSError, match="no answer"):
            parquet.read_row_group(file, uri, 0, ["a"])


def _written(uri: str, content: bytearray) -> str:
    storage.write_bytes(uri, bytes(content))
    return uri


def test_the_digest_of_a_footer_is_that_of_a_copy_and_changes_with_the_content(
    tmp_path: Path,
) -> None:
    for name, values in (("a", [1, 2, 3]), ("other", [1, 2, 4])):
        parquet.write_table(str(tmp_path / name), pa.table({"x": values}))
    shutil.copy(tmp_path / "a", tmp_path / "copy")
    a, copy, other = (
        parquet.footer_digest(str(tmp_path / name)) for name in ("a", "copy", "other")
    )
    assert a == copy != other
    for name, content in (
        ("short", b"PAR1"),
        ("text", b"no table at all"),
        ("cut", (tmp_path / "a").read_bytes()[:-3]),
        ("long", b"PAR1" + b"\xff\xff\xff\x7fPAR1"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SchemaError, match="no Parquet file, or damaged at its end"):
            parquet.footer_digest(str(tmp_path / name))


def test_lists_of_floats_are_split_by_bytes_and_read_as_they_were(tmp_path):
    schema = pa.schema([("id", pa.string()), ("probs", pa.list_(pa.float32()))])
    rows = [
        {"id": "a", "probs": [0.5, 1e-30]},
        {"id": "b", "probs": None},
        {"id": "c", "probs": []},
    ]
    table = pa.Table.from_pylist(rows, schema)
    uri = str(tmp_path / "t.parquet")
    parquet.write_table(uri, table, encodings=parquet.float_list_encodings(schema))
    assert parquet.read_table(uri).equals(table)
    group = pq.read_metadata(uri).row_group(0)
    ids, probs = group.column(0), group.column(1)
    assert "BYTE_STREAM_SPLIT" in probs.encodings
    assert "PLAIN_DICTIONARY" not in probs.encodings
    assert "RLE_DICTIONARY" not in probs.encodings
    assert (ids.is_stats_set, probs.is_stats_set) == (True, False)
