"""A folder, its description, a zip, csv and Parquet give equal packages."""

import json
import shutil
import zipfile

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.inventory.sources.camtrap_package import package_files, read_package


@pytest.fixture
def folder(tmp_path, shared_data):
    target = tmp_path / "package"
    target.mkdir()
    for file in (shared_data / "annotations/camtrapdp_1.0_spec_and_example/example").iterdir():
        shutil.copy(file, target)
    return target


@pytest.mark.real_data
def test_zip_and_description_give_the_tables_of_the_folder(folder, tmp_path):
    whole = read_package(str(folder))
    assert {name: table.num_rows for name, table in whole.tables.items()} == {
        "deployments": 4, "media": 423, "observations": 549,
    }  # fmt: skip
    assert read_package(str(folder / "datapackage.json")) == whole
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"inside/{file.name}")
    zipped = read_package(str(tmp_path / "p.zip"))
    assert zipped.tables == whole.tables
    assert zipped.root_uri == str(tmp_path)


@pytest.mark.real_data
def test_parquet_table_reads_as_its_csv(folder):
    before = read_package(str(folder))
    pq.write_table(pacsv.read_csv(folder / "media.csv"), folder / "media.parquet")
    description = json.loads((folder / "datapackage.json").read_text())
    next(r for r in description["resources"] if r["name"] == "media")["path"] = "media.parquet"
    (folder / "datapackage.json").write_text(json.dumps(description))

    after = read_package(str(folder))

    for name in ("mediaID", "deploymentID", "filePath"):
        assert after.column("media", name).equals(before.column("media", name))
    assert str(folder / "media.parquet") in package_files(str(folder))


@pytest.mark.real_data
def test_missing_table_is_an_error_of_one_line(folder, shared_data):
    (folder / "media.csv").unlink()
    with pytest.raises(ConfigError, match=r"media\.csv: no such file"):
        read_package(str(folder))
    (folder / "datapackage.json").write_text('{"resources": []}')
    with pytest.raises(SchemaError, match="resource 'deployments' not found; resources are none"):
        read_package(str(folder))


def test_file_that_is_not_a_package_is_an_error_of_one_line(tmp_path):
    (tmp_path / "media.csv").write_text("mediaID")
    with pytest.raises(ConfigError, match=r"media\.csv/datapackage\.json: no such file"):
        read_package(str(tmp_path / "media.csv"))


@pytest.mark.real_data
def test_short_row_is_filled_up_and_a_long_one_is_an_error(folder):
    before = read_package(str(folder)).tables["deployments"]
    path = folder / "deployments.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, "z,loc"]))

    table = read_package(str(folder)).tables["deployments"]

    assert table.slice(0, 4).equals(before)
    last = table.slice(4).to_pylist()[0]
    assert {name: v for name, v in last.items() if v} == {"deploymentID": "z", "locationID": "loc"}
    path.write_text("\n".join([*lines, "z" + "," * 99]))
    with pytest.raises(SchemaError, match=r"line 6 has 100 cells, the header 24"):
        read_package(str(folder))
