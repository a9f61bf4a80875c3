import tempfile

import pyarrow as pa
from builders import dataset_config
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.files import parquet, storage
from ctc_ray.stages.create_dataset.planned_columns import read_columns


@given(
    st.lists(st.lists(st.none() | st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1),
    st.integers(1, 7),
)
def test_a_location_has_one_number_whatever_parts_it_lies_in(locations, rows_per_group):
    expected = [place for part in locations for place in part]
    with tempfile.TemporaryDirectory() as folder:
        first = 0
        for number, part in enumerate(locations):
            events = [f"e{first + k:04d}" for k in range(len(part))]
            columns = {"capture_event_id": events, "location_id": pa.array(part, pa.string())}
            uri = storage.join(folder, f"part-{number:05d}.parquet")
            parquet.write_table(uri, pa.table(columns), rows_per_group=rows_per_group)
            first += len(part)
        table = read_columns(dataset_config(folder, "photos", "out"))
    assert table["location_id"].to_pylist() == expected
    names = table["location_id"].chunk(0).dictionary.to_pylist()
    assert names == sorted({place for place in expected if place is not None})
    assert table["capture_event_id"].to_pylist() == [f"e{k:04d}" for k in range(first)]
