"""What files say of themselves, read by threads, from the disk and from an object store."""

import io
from datetime import datetime

import pyarrow as pa
import pytest
from PIL import ExifTags, Image

from ctc_ray.files import storage
from ctc_ray.images.exif import CAMERA_TIMES
from ctc_ray.inventory.sources.files import find_files
from ctc_ray.stages.create_inventory.files import (
    content_hashes,
    find_images,
    missing_files,
    same_content,
)


def jpeg(taken: str | None = None, *, level: int = 0) -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.SubsecTimeOriginal] = "25"
    Image.new("L", (8, 8), level).save(out, "JPEG", exif=exif)
    return out.getvalue()


def put(folder_uri: str, **files: bytes) -> None:
    for name, content in files.items():
        storage.write_bytes(storage.join(folder_uri, name.replace("_", ".")), content)


@pytest.mark.parametrize("n_threads", [1, 7])
def test_times_and_kinds_are_read_of_the_first_bytes(folder_uri, n_threads):
    put(
        folder_uri,
        a_jpg=jpeg("2021:04:11 20:43:09"),
        b=jpeg("2021:13:11 20:43:09"),
        c_txt=jpeg(),
        d_jpg=b"",
        e_db=b"text",
        f_mp4=b"\0\0\0\x18ftypisom",
    )

    found = find_images(find_files(folder_uri), time_from=CAMERA_TIMES, n_threads=n_threads)

    assert [file.path for file in found.files] == ["a.jpg", "b", "c.txt", "d.jpg"]
    taken = datetime(2021, 4, 11, 20, 43, 9, 250_000)
    assert found.captured_at.to_pylist() == [taken, None, None, None]
    assert found.findings.counts == {"not_an_image": 2, "broken_times": 1, "images_without_time": 2}
    assert found.findings.examples("not_an_image") == ["e.db (text)", "f.mp4 (a video)"]
    assert found.findings.examples("broken_times") == [
        storage.join(folder_uri, "b") + " (2021:13:11 20:43:09)"
    ]


def test_file_that_cannot_be_read_stays(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")

    found = find_images(find_files(str(tmp_path)), time_from=CAMERA_TIMES, n_threads=2)

    assert [file.path for file in found.files] == ["gone.jpg"]
    assert found.findings.counts == {"unreadable_files": 1}


def test_a_link_that_leads_nowhere_is_no_image_unless_named_like_one(tmp_path):
    (tmp_path / "camB").symlink_to(tmp_path / "nowhere")
    found = find_images(find_files(str(tmp_path)), time_from=CAMERA_TIMES, n_threads=2)
    assert found.files == []
    assert found.findings.examples("not_an_image") == ["camB (a link that leads nowhere)"]


def test_times_are_not_looked_for_unless_they_are_wanted(tmp_path):
    put(str(tmp_path), a_jpg=jpeg("2021:13:11 20:43:09"))
    found = find_images(find_files(str(tmp_path)), time_from=(), n_threads=2)
    assert found.findings.counts == {}


def test_missing_files_are_told_with_the_place_that_was_looked_at(folder_uri):
    put(folder_uri, a_jpg=b"x")
    uris = pa.chunked_array([["a.jpg", "b.jpg"], ["/a.jpg", "b.jpg"]])

    found = missing_files(uris, root_uri=folder_uri, n_threads=3)

    assert found.counts == {"missing_files": 1}
    where = storage.join(folder_uri, "b.jpg")
    assert found.examples("missing_files") == [f"b.jpg (no file {where})"]


def test_folder_or_uri_that_is_not_read_is_no_image(tmp_path):
    uris = pa.chunked_array([[str(tmp_path), "https://example.org/a.jpg"]])
    assert missing_files(uris, root_uri=None, n_threads=3).counts == {"missing_files": 2}


def test_equal_files_name_the_first_of_them(folder_uri):
    put(folder_uri, a=jpeg(), b=jpeg(level=9), c=jpeg(), d=jpeg(level=9), e=jpeg(level=5))
    uris = pa.chunked_array([["c", "gone", "b"], ["a", "gone2", "d", "e", "a"]])

    hashes = content_hashes(uris, root_uri=folder_uri, n_threads=3)
    found = same_content(uris, hashes)

    assert hashes.is_null().to_pylist() == [False, True, False, False, True, False, False, False]

    assert [(row["row"], row["detail"]) for row in found.table().to_pylist()] == [
        ("a", "c"),
        ("d", "b"),
        ("a", "c"),
    ]


@pytest.mark.s3
def test_a_store_that_fails_is_no_finding(flaky_uri, faults):
    storage.write_bytes(storage.join(flaky_uri, "a.jpg"), b"1")
    storage.write_bytes(storage.join(flaky_uri, "b.jpg"), b"1")
    uris = pa.array(["a.jpg", "b.jpg"])
    faults.refuse_every, faults.status = 3, 400
    missing = missing_files(uris, root_uri=flaky_uri, n_threads=2)
    same = same_content(uris, content_hashes(uris, root_uri=flaky_uri, n_threads=2))
    assert (missing.counts, same.counts) == ({}, {"same_content": 1})
    faults.refuse_every = 1
    for look in (missing_files, content_hashes):
        with pytest.raises(ConnectionError, match=r"\.jpg"):
            look(uris, root_uri=flaky_uri, n_threads=2)


def test_of_many_files_each_has_its_own_time(tmp_path):
    """303 files by two threads: a thread looks at 16 one after the other, and at 15 at the end."""
    times = [datetime(2021, 4, 11, 20, number // 60, number % 60) for number in range(303)]
    for number, time in enumerate(times):
        (tmp_path / f"{number:03d}.jpg").write_bytes(jpeg(f"{time:%Y:%m:%d %H:%M:%S}"))
    found = find_images(find_files(str(tmp_path)), time_from=CAMERA_TIMES, n_threads=2)
    assert [file.path for file in found.files] == [f"{number:03d}.jpg" for number in range(303)]
    assert [time.replace(microsecond=0) for time in found.captured_at.to_pylist()] == times
