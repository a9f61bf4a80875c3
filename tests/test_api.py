"""The public names: typed, light to import, and with the answers of `ctc predict`."""

import ast
import csv
import importlib
import io
import pickle
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from builders import (
    dataset_config,
    inventory_config,
    photograph,
    put_file,
    untrained_bundle,
    write_events,
)
from PIL import ExifTags, Image

import ctc_ray
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.files import parquet, storage
from ctc_ray.runs.executor import InProcess
from ctc_ray.schemas import Failure, shard_schema
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.predict import stage as predict

ROOT = Path(__file__).resolve().parents[1]
HEADS = ("species", "count")
PREDICTED = [f"{part}_{head}" for head in HEADS for part in ("pred", "score", "probs")]


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(untrained_bundle(tmp_path_factory.mktemp("bundle") / "model"))


@pytest.fixture(scope="module")
def bundle(bundle_uri: str) -> ctc_ray.LoadedBundle:
    return ctc_ray.load_bundle(bundle_uri)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 events with 47 images, and events.csv, which names one image more."""
    folder = tmp_path_factory.mktemp("photos")
    write_events(folder, n_events=24, broken=[3])
    return folder


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `inventory` and `dataset`, whose shards hold 5 images each."""
    folder = tmp_path_factory.mktemp("data")
    ctc_ray.create_inventory(inventory_config(photos / "events.csv", folder / "inventory"))
    config = dataset_config(folder / "inventory", photos, folder / "dataset")
    create_dataset.run(config, executor=InProcess())
    return folder


# -- names -----------------------------------------------------------------------------------------


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_public_names_can_be_imported_and_nothing_else_is_listed() -> None:
    for name in ctc_ray.__all__:
        assert getattr(ctc_ray, name) is not None
    assert ctc_ray.__all__ == sorted(ctc_ray.__all__) == dir(ctc_ray)
    with pytest.raises(AttributeError, match="'ctc_ray' has no attribute 'no_such_name'"):
        ctc_ray.no_such_name  # noqa: B018


def test_type_checkers_see_the_names_that_programs_get() -> None:
    tree = ast.parse((ROOT / "ctc_ray" / "__init__.py").read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == [name for name in ctc_ray.__all__ if name != "__version__"]
    for name, module in seen.items():
        assert getattr(ctc_ray, name) is getattr(importlib.import_module(str(module)), name)


def test_the_package_is_typed_where_it_is_installed() -> None:
    assert (ROOT / "ctc_ray" / "py.typed").is_file()
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert "py.typed" in tools["setuptools"]["package-data"]["ctc_ray"]


def test_every_command_and_its_configuration_is_public() -> None:
    from ctc_ray import cli

    commands = {str(name).replace("-", "_") for name in cli.make_app() if "-" not in str(name)[:1]}
    assert commands <= set(ctc_ray.__all__)
    configs = [config for *_, config in (*cli._STAGES, *cli._SOURCES)]
    assert {config.__name__ for config in configs} <= set(ctc_ray.__all__)


def test_importing_the_package_imports_no_large_library() -> None:
    large = "{'ray', 'torch', 'pyarrow', 'numpy', 'pandas', 'PIL', 'pydantic'}"
    code = f"import sys, ctc_ray; dir(ctc_ray); print({large} & set(sys.modules))"
    assert in_a_new_process(code) == "set()"


def test_predicting_and_opening_a_dataset_import_no_ray(
    bundle_uri: str, data: Path, photos: Path
) -> None:
    image = next((photos / "images").iterdir())
    code = f"""
import sys, ctc_ray
print(ctc_ray.read_manifest({str(data / "dataset")!r}).kind)
print(ctc_ray.open_dataset({str(data / "dataset")!r}).count_rows())
print({{'ray', 'torch'}} & set(sys.modules))
print(ctc_ray.load_bundle({bundle_uri!r}).predict([{str(image)!r}]).failures)
print('ray' in sys.modules)
"""
    assert in_a_new_process(code).splitlines() == ["dataset", "48", "set()", "[None]", "False"]


# -- predict ---------------------------------------------------------------------------------------


def predicted_by_the_command(bundle_uri: str, output: Path, **fields: Any) -> pa.Table:
    config = PredictConfig.model_validate(
        {
            "bundle_uri": bundle_uri,
            "output_uri": str(output),
            "max_failure_fraction": 1.0,
            **fields,
        }
    )
    predict.run(config, executor=InProcess())
    return parquet.read_folder(str(output / "images"))


@pytest.mark.parametrize("batch_size", [1, 7, 128])
def test_answers_are_those_of_the_command_to_the_last_bit(
    bundle_uri: str, bundle: ctc_ray.LoadedBundle, photos: Path, tmp_path: Path, batch_size: int
) -> None:
    rows = predicted_by_the_command(
        bundle_uri,
        tmp_path / "out",
        csv_uri=str(photos / "events.csv"),
        event_column="event",
        image_columns=("image1", "image2", "image3"),
        image_root_uri=str(photos),
        batch_size=batch_size,
    )
    paths = [photos / uri for uri in rows["image_uri"].to_pylist()]
    answers = bundle.predict(paths, batch_size=batch_size)
    columns = ["failure", *PREDICTED]
    assert answers.table.select(columns).equals(rows.select(columns).combine_chunks())
    assert answers.table["image_uri"].to_pylist() == list(map(str, paths))
    assert answers.failures.count("missing") == 1


@pytest.mark.real_data
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_answers_for_photographs_and_broken_files_are_those_of_the_command(
    shared_data: Path, tmp_path: Path, keep_aspect: bool
) -> None:
    uri = str(untrained_bundle(tmp_path / "model", image_size=96, keep_aspect=keep_aspect))
    photographs = sorted((shared_data / "photos" / "peru_bursts").rglob("*.JPG"))[:6]
    paths = [
        *photographs,
        *sorted((shared_data / "photos" / "ena24_small").rglob("*.*g")),
        *sorted((shared_data / "malformed" / "pillow").iterdir())[:40],
    ]
    csv_path = tmp_path / "photographs.csv"
    with csv_path.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "image"], *([n, p] for n, p in enumerate(paths))])
    rows = predicted_by_the_command(
        uri,
        tmp_path / "out",
        csv_uri=str(csv_path),
        event_column="id",
        image_columns=("image",),
        batch_size=16,
    )
    uris = rows["image_uri"].to_pylist()
    assert sorted(uris) == sorted(map(str, paths))
    answers = ctc_ray.load_bundle(uri).predict(iter(uris), batch_size=16)
    columns = ["failure", *PREDICTED]
    assert answers.table.select(columns).equals(rows.select(columns).combine_chunks())
    assert len(photographs) == 6
    assert len(set(answers.failures)) > 2


def test_failures_are_values_and_have_no_prediction(
    bundle: ctc_ray.LoadedBundle, tmp_path: Path
) -> None:
    raw = photograph("red", seed=0)
    images = [raw, tmp_path / "no.jpg", b"", b"%PDF-1.7", raw[: len(raw) // 2], raw]
    answers = bundle.predict(images, batch_size=2)
    reasons = [None, "missing", "unreadable", "unsupported", "truncated", None]
    assert answers.failures == reasons
    species = answers["species"]
    assert [p is None for p in species.pred] == [reason is not None for reason in reasons]
    assert np.isnan(species.score).tolist() == [reason is not None for reason in reasons]
    assert np.isnan(species.probs).all(axis=1).tolist() == np.isnan(species.score).tolist()
    assert species.pred[0] == species.pred[5]
    kept = bundle.predict(images, truncated="keep", max_pixels=64 * 48 - 1)
    assert (
        kept.failures == ["too_large", "missing", "unreadable", "unsupported"] + ["too_large"] * 2
    )
    assert bundle.predict(images[4:5], truncated="keep").failures == [None]


def test_the_limits_are_those_of_the_command() -> None:
    from inspect import signature

    given = signature(ctc_ray.LoadedBundle.predict).parameters
    for name in ("max_pixels", "truncated"):
        assert given[name].default == PredictConfig.model_fields[name].default
    on_cpus = PredictConfig(bundle_uri="b", output_uri="o", images_uri="i")
    assert given["batch_size"].default == on_cpus.images_at_once


def test_each_head_has_its_classes_and_their_probabilities(bundle: ctc_ray.LoadedBundle) -> None:
    answers = bundle.predict([photograph("red", seed=0), photograph("blue", seed=1)])
    assert bundle.heads == tuple(answers) == HEADS
    assert dict(bundle.classes) == {"species": ("blue", "green", "red"), "count": ("1", "2")}
    for head, found in answers.items():
        assert found.classes == bundle.classes[head]
        assert found.probs.shape == (2, len(found.classes))
        assert found.probs.dtype == found.score.dtype == np.float32
        np.testing.assert_allclose(found.probs.sum(axis=1), 1, atol=1e-6)
        top = found.probs.argmax(axis=1)
        assert found.pred == [found.classes[k] for k in top]
        np.testing.assert_array_equal(found.score, found.probs[[0, 1], top])
    with pytest.raises(KeyError, match="colour"):
        answers["colour"]


def test_pandas_frame_has_a_row_per_image_and_the_columns_of_the_command(
    bundle: ctc_ray.LoadedBundle, tmp_path: Path
) -> None:
    frame = bundle.predict([photograph("red", seed=0), str(tmp_path / "no.jpg")]).to_pandas()
    assert list(frame.columns) == ["image_uri", "failure", *PREDICTED]
    assert frame["image_uri"].to_list()[1] == str(tmp_path / "no.jpg")
    assert frame["pred_species"].isna().to_list() == [False, True]


def test_no_image_has_no_row(bundle: ctc_ray.LoadedBundle) -> None:
    answers = bundle.predict([])
    assert answers.failures == answers["count"].pred == []
    assert answers["count"].probs.shape == (0, 2)
    assert len(answers.to_pandas()) == 0


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
def test_a_pillow_image_is_like_a_lossless_file_with_its_pixels(
    bundle: ctc_ray.LoadedBundle, mode: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 211, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) << 8)
    elif mode == "RGBA":
        image.putalpha(Image.fromarray(pixels[..., 0]))
    else:
        image = image.convert(mode)
    assert image.mode == mode
    answers = bundle.predict([image, png(image)])
    assert answers.failures == [None, None]
    for found in answers.values():
        np.testing.assert_array_equal(found.probs[0], found.probs[1])


def test_an_array_is_like_the_pillow_image_of_it(bundle: ctc_ray.LoadedBundle) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 150, 211, 3), dtype=np.uint8)
    gray = pixels[0, ..., :1]
    images = [*pixels, gray, gray[..., 0], pixels[0, ::-1, ::2]]
    as_pillow = [Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in images]
    ours, theirs = (bundle.predict(some)["species"].probs for some in (images, as_pillow))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(bundle.predict(pixels)["species"].probs, ours[:3])


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_of_a_pillow_image_is_applied_once(
    bundle: ctc_ray.LoadedBundle, format_: str
) -> None:
    ramps_HWC = np.indices((90, 60)).transpose(1, 2, 0) * 2
    upright = Image.fromarray(np.dstack([ramps_HWC, ramps_HWC[..., :1] * 0]).astype(np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn by 90 degrees clockwise to be upright
    buffer = io.BytesIO()
    options = {"quality": 100, "subsampling": 0} if format_ == "JPEG" else {}
    upright.rotate(90, expand=True).save(buffer, format_, exif=exif, **options)
    opened = Image.open(buffer)
    answers = bundle.predict([upright, opened, opened, Image.open(buffer), upright.rotate(90)])
    found = answers["species"].probs
    np.testing.assert_allclose(found[1], found[0], atol=1e-3 if format_ == "JPEG" else 0)
    assert np.abs(found[4] - found[0]).max() > 5e-3
    np.testing.assert_array_equal(found[1:3], found[2:4])


def test_a_pillow_image_that_cannot_be_loaded_is_a_failure(bundle: ctc_ray.LoadedBundle) -> None:
    raw = photograph("red", seed=0)
    images = [Image.open(io.BytesIO(raw[: len(raw) // 2])), Image.new("RGB", (60, 60))]
    assert bundle.predict(images).failures == ["unreadable", None]
    assert bundle.predict(images[1:], max_pixels=3599).failures == ["too_large"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("a.jpg", "images is one image; give a list of images"),
        ([7], "an image is a int; give a path, bytes, a Pillow image or an array"),
        ([np.zeros((4, 4, 3))], r"an array of float64 with shape \(4, 4, 3\); give uint8"),
        ([np.zeros((3, 4, 4), np.uint8)], r"with shape \(3, 4, 4\)"),
        ([np.zeros((0, 4, 3), np.uint8)], r"with shape \(0, 4, 3\)"),
    ],
)
def test_what_is_no_image_is_an_error_of_the_program(
    bundle: ctc_ray.LoadedBundle, images: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        bundle.predict(images)


def test_an_iterator_is_read_as_far_as_it_is_needed(bundle: ctc_ray.LoadedBundle) -> None:
    taken = []

    def images() -> Any:
        for seed in range(400):
            taken.append(seed)
            yield photograph("red", seed=0) if seed else 7  # the first is an error

    with pytest.raises(TypeError):
        bundle.predict(images(), batch_size=4)
    assert len(taken) < 100


def test_threads_may_predict_with_one_model(bundle: ctc_ray.LoadedBundle) -> None:
    images = [photograph("green", seed=seed) for seed in range(8)]
    expected = bundle.predict(images)["species"].probs
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(bundle.predict(images)["species"].probs))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for probs in found:
        np.testing.assert_array_equal(probs, expected)
    assert len(found) == 4


def test_predicting_leaves_the_threads_of_torch_alone(bundle: ctc_ray.LoadedBundle) -> None:
    before = torch.get_num_threads()
    bundle.predict([photograph("red", seed=0)])
    assert torch.get_num_threads() == before


# -- data ------------------------------------------------------------------------------------------


def test_dataset_has_the_rows_of_its_shards_and_the_split_as_a_column(data: Path) -> None:
    manifest = ctc_ray.read_manifest(str(data / "dataset"), "dataset")
    dataset = ctc_ray.open_dataset(data / "dataset")
    assert dataset.schema.names == [*shard_schema(HEADS, ["site"]).names, "split"]
    rows = dataset.to_table()
    parts = [parquet.read_table(str(data / "dataset" / s.path)) for s in manifest.shards]
    assert rows.drop_columns(["split"]).equals(pa.concat_tables(parts).cast(parts[0].schema))
    expected = [shard.split for shard in manifest.shards for _ in range(shard.n_images)]
    assert rows["split"].to_pylist() == expected
    is_val = ctc_ray.open_dataset(data / "dataset").filter(pa.compute.field("split") == "val")
    assert is_val.count_rows() == expected.count("val") > 0


def test_dataset_leaves_out_shards_that_no_manifest_lists(data: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "dataset"
    shutil.copytree(data / "dataset", folder)
    shard = next(folder.rglob("part-00000.parquet"))
    shutil.copy(shard, shard.with_name("part-00099.parquet"))
    assert ctc_ray.open_dataset(str(folder)).count_rows() == 48


def test_dataset_goes_to_other_processes(data: Path) -> None:
    dataset = ctc_ray.open_dataset(data / "dataset")
    again = pickle.loads(pickle.dumps(dataset))
    assert again.to_table(columns=["split", "image_id"]).num_rows == 48


def test_dataset_changes_nothing(data: Path) -> None:
    files = ctc_ray.open_dataset(data / "dataset").filesystem
    with pytest.raises(NotImplementedError, match="read only"):
        files.delete_file(str(data / "dataset" / "_failures.parquet"))


def test_folder_that_is_no_dataset_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ctc_ray.ConfigError, match="holds inventory, expected dataset"):
        ctc_ray.open_dataset(data / "inventory")
    with pytest.raises(ctc_ray.IncompleteDataError, match="ctc create-dataset"):
        ctc_ray.open_dataset(tmp_path)


@pytest.mark.s3
def test_bundle_dataset_and_images_may_be_in_an_object_store(
    data: Path, bundle_uri: str, photos: Path, s3_bucket_uri: str
) -> None:
    for folder in (data / "dataset", Path(bundle_uri), photos / "images"):
        for path in folder.rglob("*"):
            if path.is_file():
                put_file(f"{s3_bucket_uri}/{folder.name}", str(path.relative_to(folder)),
                         path.read_bytes())  # fmt: skip
    local, remote = data / "dataset", ctc_ray.open_dataset(f"{s3_bucket_uri}/dataset")
    assert remote.to_table().equals(ctc_ray.open_dataset(local).to_table())
    names = ["e000_0.jpg", "e003_0.jpg", "e005_1.jpg"]
    uris = [storage.join(s3_bucket_uri, "images", name) for name in names]
    answers = ctc_ray.load_bundle(f"{s3_bucket_uri}/model").predict(uris)
    assert answers.failures == [None, Failure.MISSING.value, None]
    here = ctc_ray.load_bundle(bundle_uri).predict([photos / "images" / name for name in names])
    assert answers.table.drop_columns(["image_uri"]).equals(here.table.drop_columns(["image_uri"]))


# -- commands --------------------------------------------------------------------------------------


def test_every_command_is_a_function_of_its_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modules = {
        "create_inventory": "create_inventory.stage",
        "create_dataset": "create_dataset.stage",
        "train": "train.stage",
        "tune": "tune.stage",
        "predict": "predict.stage",
        "export": "export",
        "show": "show.stage",
        "demo": "demo",
    }
    for name, module in modules.items():
        stage = importlib.import_module(f"ctc_ray.stages.{module}")
        monkeypatch.setattr(stage, "run", lambda config, name=name: (name, config))
        assert getattr(ctc_ray, name)("config") == (name, "config")


def test_show_returns_what_the_command_prints(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = ctc_ray.show(ctc_ray.ShowConfig(uri=str(data / "dataset")))
    assert summary.values["rows_out"] == 48
    assert capsys.readouterr().out == ""
