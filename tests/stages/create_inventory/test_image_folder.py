"""A folder of images, whatever lies in it: times, order, folders, and what is set aside."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

from ctc_ray.config.choices import TimeSource
from ctc_ray.config.inventory import DirInventoryConfig, ImagesInventoryConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.create_inventory import stage as create_inventory

EXIF, ORIGINAL, DIGITIZED, MODIFIED, MAKER_NOTE, MAKE = (
    0x8769,
    0x9003,
    0x9004,
    0x0132,
    0x927C,
    0x10F,
)


def image(
    kind: str = "JPEG",
    *,
    noise: int = 0,
    note: bytes | None = None,
    **times: str,
) -> bytes:
    """An image whose EXIF data name these times.

    Args:
        noise: side of a square of noise; such a file is long, and a PNG's or WebP's EXIF lies
            before or behind it.
    """
    exif = Image.Exif()
    tags = {"original": ORIGINAL, "digitized": DIGITIZED}
    below = exif.get_ifd(EXIF)
    for name, text in times.items():
        if name == "modified":
            exif[MODIFIED] = text
        else:
            below[tags[name]] = text
    if note is not None:
        below[MAKER_NOTE] = note
        exif[MAKE] = "RECONYX"
    side = noise or 8
    pixels = np.random.default_rng(0).integers(0, 256 if noise else 1, (side, side, 3), np.uint8)
    out = io.BytesIO()
    how = {"lossless": True} if kind == "WEBP" else {}
    if kind == "TIFF":
        return tiff(pixels, times["original"])
    Image.fromarray(pixels).save(out, kind, exif=exif.tobytes(), **how)
    return out.getvalue()


def tiff(pixels: np.ndarray, original: str) -> bytes:
    """A TIFF file whose directories lie behind its pixels, as most programs write them."""
    height, width, _ = pixels.shape
    first = 8 + pixels.nbytes
    below = first + 2 + 12 * 9 + 4
    text = below + 2 + 12 + 4
    numbers = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 273: 8, 277: 3, 279: pixels.nbytes}
    entries = [(tag, 4, 1, value) for tag, value in numbers.items()] + [(EXIF, 4, 1, below)]

    def directory(rows: list[tuple[int, int, int, int]]) -> bytes:
        body = b"".join(struct.pack("<HHII", *row) for row in rows)
        return struct.pack("<H", len(rows)) + body + bytes(4)

    exif = directory([(ORIGINAL, 2, 20, text)]) + original.encode() + b"\0"
    return b"II*\0" + struct.pack("<I", first) + pixels.tobytes() + directory(entries) + exif


def reconyx(event: int, frame: int, n_frames: int, text: str) -> bytes:
    """A maker note of a HyperFire: see the layout of ExifTool's Reconyx::Main."""
    date, time = text.split(" ")
    year, month, day = map(int, date.split(":"))
    hour, minute, second = map(int, time.split(":"))
    words = [
        0xF101,
        3,
        3,
        0,
        0x2011,
        0x0110,
        ord("M"),
        frame,
        n_frames,
        event >> 16,
        event & 0xFFFF,
    ]
    return struct.pack("<17H", *words, second, minute, hour, month, day, year) + bytes(80)


def read(tmp_path: Path, files: dict[str, bytes], **fields: object) -> tuple[Manifest, list[dict]]:
    """The inventory of these files: path -> content."""
    root = tmp_path / "root"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return read_folder(root, tmp_path / "out", **fields)


def read_folder(root: Path, output: Path, **fields: object) -> tuple[Manifest, list[dict]]:
    config = ImagesInventoryConfig(source_uri=str(root), output_uri=str(output), **fields)
    manifest = create_inventory.run(config)
    return manifest, parquet.read_folder(str(output)).to_pylist()


def events(rows: list[dict], root: Path) -> list[list[str]]:
    """The images of each event in their order, as paths below the root."""
    found: dict[str, list[str]] = {}
    for row in rows:
        path = str(Path(row["image_uri"]).relative_to(root))
        found.setdefault(row["capture_event_id"], []).append(path)
    return sorted(found.values())


def burst(second: int) -> str:
    return f"2019:06:01 10:00:{second:02d}"


# -- times -----------------------------------------------------------------------------------------

SIX_KINDS = {
    "modified": ("JPEG", "modified", 0),
    "digitized": ("JPEG", "digitized", 0),
    "jpeg": ("JPEG", "original", 0),
    "png": ("PNG", "original", 300),
    "webp": ("WEBP", "original", 300),
    "tiff": ("TIFF", "original", 300),
}


@pytest.fixture
def six_kinds() -> dict[str, bytes]:
    """A burst of three per kind of file; those with noise are longer than the part read first."""
    files = {
        f"{name}/{second}.{kind.lower()}": image(kind, noise=noise, **{tag: burst(second)})
        for name, (kind, tag, noise) in SIX_KINDS.items()
        for second in range(3)
    }
    assert all(len(files[f"{name}/0.{name}"]) > 200_000 for name in ("png", "webp", "tiff"))
    return files


def test_times_are_read_in_every_kind_of_file_and_counted_by_their_source(
    tmp_path: Path, six_kinds: dict[str, bytes]
) -> None:
    manifest, rows = read(tmp_path, six_kinds)
    dated = {Path(r["image_uri"]).parent.name for r in rows if r["captured_at"] is not None}
    assert dated == SIX_KINDS.keys() - {"modified"}
    assert manifest.summary["events"] == 5 + 3
    assert manifest.findings == {
        "images_without_time": 3,
        "images_with_only_a_modify_date": 3,
        "times_from_digitized": 3,
        "times_from_original": 12,
    }


def test_modify_dates_count_only_when_asked(tmp_path: Path, six_kinds: dict[str, bytes]) -> None:
    asked: Sequence[TimeSource] = ("original", "digitized", "modify-date")
    manifest, rows = read(tmp_path, six_kinds, time_from=asked)
    assert manifest.summary["events"] == 6
    assert {row["n_images"] for row in rows} == {3}
    assert manifest.findings["times_from_modify_date"] == 3


@pytest.mark.parametrize(
    "name",
    [
        "IMG_20190601_100000.JPG",
        "2019-06-01 10-00-00.jpg",
        "S1__2019-06-01__10-00-00(1).JPG",
        "20190601100000123.jpg",
    ],
)
def test_names_count_only_when_asked(tmp_path: Path, name: str) -> None:
    manifest, (row,) = read(tmp_path, {name: image()})
    assert row["captured_at"] is None
    manifest, (row,) = read(tmp_path / "b", {name: image()}, time_from=("original", "file-name"))
    assert str(row["captured_at"]) == "2019-06-01 10:00:00"
    assert manifest.findings == {"times_from_file_name": 1}


@pytest.mark.parametrize("name", ["IMG_20191301_100000.JPG", "12345678901234567890.jpg", "a.jpg"])
def test_a_name_without_a_time_gives_none(tmp_path: Path, name: str) -> None:
    _, (row,) = read(tmp_path, {name: image()}, time_from=("file-name",))
    assert row["captured_at"] is None


def test_the_first_time_that_is_a_date_counts_and_broken_ones_are_listed(tmp_path: Path) -> None:
    files = {
        "a/1.jpg": image(original=burst(1), digitized=burst(2), modified=burst(3)),
        "b/1.jpg": image(original="0000:00:00 00:00:00", digitized=burst(2)),
        "c/1.jpg": image(original="2019:13:01 10:00:00", digitized="no date"),
    }
    manifest, rows = read(tmp_path, files)
    assert [str(row["captured_at"])[-2:] for row in sorted(rows, key=lambda r: r["image_uri"])] == [
        "01", "02", "ne",
    ]  # fmt: skip
    assert manifest.findings["broken_times"] == 1


def test_reconyx_notes_give_time_and_events(tmp_path: Path) -> None:
    """Two triggers within the gap, and the second has a frame in the next minute."""
    files = {
        f"S/RCNX{k:04d}.JPG": image(note=reconyx(70_000 + event, frame, 3, f"2020:03:16 10:{at}"))
        for k, (event, frame, at) in enumerate(
            [(1, 1, "00:00"), (1, 2, "00:01"), (2, 1, "00:20"), (2, 2, "03:00"), (2, 3, "03:01")]
        )
    }
    manifest, rows = read(tmp_path, files)
    names = [[Path(path).stem[-1] for path in event] for event in events(rows, tmp_path / "root")]
    assert names == [["0", "1"], ["2", "3", "4"]]
    assert str(rows[0]["captured_at"].date()) == "2020-03-16"
    assert manifest.findings == {"times_from_maker_note": 5}

    manifest, _ = read(tmp_path / "gap", files, camera_events=False)
    assert manifest.summary["events"] == 2
    names = [[Path(p).stem[-1] for p in e] for e in events(_, tmp_path / "gap" / "root")]
    assert names == [["0", "1", "2"], ["3", "4"]]


def test_a_note_that_is_cut_or_of_another_camera_is_as_if_absent(tmp_path: Path) -> None:
    whole = reconyx(1, 1, 3, burst(0))
    files = {
        "cut.jpg": image(note=whole[:20]),
        "other.jpg": image(note=b"Nikon\0" + whole),
        "date.jpg": image(note=reconyx(1, 1, 3, "2019:13:40 10:00:00")),
    }
    manifest, rows = read(tmp_path, files)
    assert [row["captured_at"] for row in rows] == [None] * 3
    assert manifest.findings == {"broken_times": 1, "images_without_time": 2}


@pytest.mark.real_data
def test_the_maker_note_of_a_real_camera_is_read(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data.parent / "cases" / "21-reconyx-maker-note"
    _, (row,) = read_folder(folder, tmp_path / "out")
    assert str(row["captured_at"]) == "2020-03-16 10:00:00"


@pytest.mark.real_data
def test_bursts_of_the_case_with_odd_times_are_six_events(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data.parent / "cases" / "01-exif-datetime-only" / "pics"
    manifest, rows = read_folder(folder, tmp_path / "a")
    assert manifest.summary["events"] == 5 + 3
    assert manifest.findings["images_with_only_a_modify_date"] == 3
    manifest, rows = read_folder(
        folder, tmp_path / "b", time_from=("original", "digitized", "modify-date")
    )
    assert [len(event) for event in events(rows, folder)] == [3] * 6


# -- order and folders of cameras ------------------------------------------------------------------


@pytest.mark.parametrize("layout", [None, "{location}", "{location}/{deployment}"])
def test_a_burst_over_two_folders_of_a_camera_is_one_event_in_its_order(
    tmp_path: Path, layout: str | None
) -> None:
    taken = ["A/100EK113/I_9998.JPG", "A/100EK113/I_9999.JPG", "A/101EK113/I_0001.JPG"]
    files = dict.fromkeys([*taken, "B/100EK113/I_0001.JPG"], image(original=burst(0)))
    _, rows = read(tmp_path, files, layout=layout)
    assert events(rows, tmp_path / "root") == [taken, ["B/100EK113/I_0001.JPG"]]
    assert len({(row["location_id"], row["deployment_id"]) for row in rows}) == 2


def test_images_of_one_second_are_in_the_order_of_the_counter(tmp_path: Path) -> None:
    taken = [f"S/IMG_{k}.JPG" for k in (8, 9, 10, 11)]
    _, rows = read(tmp_path, dict.fromkeys(taken, image(original=burst(0))))
    assert events(rows, tmp_path / "root") == [taken]
    assert [row["image_index"] for row in rows] == [0, 1, 2, 3]


# -- clocks ----------------------------------------------------------------------------------------


def test_a_clock_in_the_future_is_a_finding_as_one_in_the_past(tmp_path: Path) -> None:
    files = {
        "A/1.jpg": image(original="1970:01:01 00:00:10"),
        "B/1.jpg": image(original="2100:01:01 00:00:10"),
        "C/1.jpg": image(original=burst(0)),
    }
    manifest, _ = read(tmp_path, files)
    assert manifest.findings == {"clock_resets": 1, "future_times": 1}


def test_corrections_come_before_events_and_stay_in_the_manifest(tmp_path: Path) -> None:
    """B was an hour slow in summer: with the right clock its two bursts are one."""
    files = {
        "B/1.jpg": image(original="2019:06:01 09:00:00"),
        "B/2.jpg": image(original="2019:06:01 10:00:30"),
        "C/1.jpg": image(original="2019:06:01 09:00:00"),
    }
    fixes = tmp_path / "fixes.csv"
    fixes.write_text("deployment,to,shift\nB,2019-06-01 09:30:00,+1:00\n")
    before, _ = read(tmp_path / "a", files)
    manifest, rows = read(tmp_path / "b", files, clock_corrections_uri=str(fixes))
    assert (before.summary["events"], manifest.summary["events"]) == (3, 2)
    times = {Path(r["image_uri"]).parent.name + r["image_uri"][-5]: r["captured_at"] for r in rows}
    assert {name: f"{time:%H:%M:%S}" for name, time in times.items()} == {
        "B1": "10:00:00", "B2": "10:00:30", "C1": "09:00:00",
    }  # fmt: skip
    assert manifest.findings["times_corrected"] == 1
    assert manifest.summary["clock corrections"] == [
        {"deployment": "B", "correction": "+1:00:00 to 2019-06-01 09:30:00: 1 images"}
    ]
    assert str(fixes) in manifest.inputs


# -- what is set aside -----------------------------------------------------------------------------

ASIDE = ["@eaDir/a.jpg", ".thumbnails/a.jpg", "S/.hidden.jpg", "S/Thumbs.db", "S/#recycle/a.jpg"]


def test_hidden_files_and_those_of_systems_are_set_aside_in_trees_and_class_folders(
    tmp_path: Path,
) -> None:
    content = {name: image() for name in ["S/a.jpg", *ASIDE]}
    content["S/Thumbs.db"] = b"\xd0\xcf\x11\xe0"
    manifest, rows = read(tmp_path, content)
    assert [Path(row["image_uri"]).name for row in rows] == ["a.jpg"]
    assert manifest.findings["not_an_image"] == len(ASIDE)
    config = DirInventoryConfig(source_uri=str(tmp_path / "root"), output_uri=str(tmp_path / "dir"))
    manifest = create_inventory.run(config)
    assert manifest.classes == {"class": ["S"]}
    assert manifest.findings["not_an_image"] == len(ASIDE)


def test_a_folder_that_is_linked_twice_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "camA" / "sub").mkdir(parents=True)
    (root / "camA" / "sub" / "1.jpg").write_bytes(image())
    (root / "again").symlink_to(root / "camA")
    (root / "camA" / "loop").symlink_to(root)
    _, rows = read_folder(root, tmp_path / "out")
    assert len(rows) == 2
    table = parquet.read_table(str(tmp_path / "out" / "_findings.parquet"))
    told = table.filter(pc.equal(table["kind"], "folders_linked_twice")).to_pylist()
    assert [(one["row"], one["detail"]) for one in told] == [("again/sub", "is camA/sub")]


# -- labelled trees --------------------------------------------------------------------------------


def test_a_layout_gives_labels_and_places_together(tmp_path: Path) -> None:
    """Frames of one burst that were sorted into species are one event; its blank is no label."""
    files = {
        "S1/fox/1.jpg": image(original=burst(0)),
        "S1/empty/2.jpg": image(original=burst(1)),
        "S1/deer/3.jpg": image(original="2019:06:02 10:00:00"),
        "S2/Blank/1.jpg": image(original=burst(0)),
    }
    manifest, rows = read(tmp_path, files, layout="{location}/{head:species}", rare_class_events=0)
    assert manifest.classes == {"species": ["Blank", "deer", "fox"]}
    found = {
        str(Path(row["image_uri"]).relative_to(tmp_path / "root")): (
            row["location_id"],
            [one["species"] for one in row["observations"]],
        )
        for row in rows
    }
    assert found == {
        "S1/fox/1.jpg": ("S1", ["fox"]),
        "S1/empty/2.jpg": ("S1", ["fox"]),
        "S1/deer/3.jpg": ("S1", ["deer"]),
        "S2/Blank/1.jpg": ("S2", ["Blank"]),
    }
    assert manifest.findings["blank_beside_labelled"] == 1


def test_a_layout_that_fits_no_file_is_an_error_unless_allowed(tmp_path: Path) -> None:
    files = {"S1/1.jpg": image(), "S2/1.jpg": image()}
    message = (
        r"no file fits the layout '\{location\}/\{deployment\}', e\.g\. 'S1/1\.jpg'.*--allow-un"
    )
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, files, layout="{location}/{deployment}")
    assert not (tmp_path / "out").exists()
    manifest, _ = read(tmp_path, files, layout="{location}/{deployment}", allow_unmatched=True)
    assert manifest.findings["files_outside_layout"] == 2
