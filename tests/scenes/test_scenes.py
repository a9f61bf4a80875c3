"""Drawn scenes are deterministic and dated, differ between locations, and some are broken."""

import csv
import io
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctc_ray.images.decode import decode
from ctc_ray.images.exif import captured_at
from ctc_ray.scenes.scenes import SIZE, Scene, draw_event, write_scenes
from ctc_ray.schemas import Failure

SMALL = (160, 120)


def frames(seed: int, scene: Scene) -> list[np.ndarray]:
    return [view(raw) for raw in draw_event(seed, scene, size=SMALL)]


def view(raw: bytes) -> np.ndarray:
    image_HWC = decode(raw, smallest_side=None, max_pixels=10**6, truncated="fail")
    assert not isinstance(image_HWC, Failure)
    return image_HWC.astype(int)


def test_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    scene = Scene(3, "zebra", 2)
    assert draw_event(1, scene, size=SMALL) == draw_event(1, scene, size=SMALL)
    assert draw_event(1, scene, size=SMALL) != draw_event(2, scene, size=SMALL)


def test_frames_are_one_second_apart_and_name_their_camera() -> None:
    raws = draw_event(1, Scene(3, "boar", 1, n_frames=4), size=SMALL)
    times = [captured_at(raw) for raw in raws]
    assert None not in times
    assert [time - times[0] for time in times] == [timedelta(seconds=k) for k in range(4)]
    with Image.open(io.BytesIO(raws[0])) as image:
        assert image.size == SMALL
        assert image.getexif()[0x010F] == "CTC"
        assert image.getexif()[0x0110] == "Drawn scene"


def test_the_default_size_is_that_of_a_small_camera() -> None:
    (raw,) = draw_event(0, Scene(0, n_frames=1))
    assert view(raw).shape == (SIZE[1], SIZE[0], 3)


def test_nights_are_gray_with_dark_corners_and_days_are_coloured() -> None:
    for seed in range(4):
        (night,) = frames(seed, Scene(seed, night=True, n_frames=1))
        (day,) = frames(seed, Scene(seed, n_frames=1))
        assert (night.max(axis=2) == night.min(axis=2)).all()
        assert (day.max(axis=2) - day.min(axis=2)).mean() > 8
        middle, corner = night[50:70, 60:100], night[92:112, :20]
        assert middle.mean() > 1.5 * corner.mean()


def test_night_falls_after_nine_and_day_is_day() -> None:
    for seed in range(10):
        for night in (True, False):
            (raw,) = draw_event(seed, Scene(0, night=night, n_frames=1), size=SMALL)
            time = captured_at(raw)
            assert time is not None
            assert (time.hour >= 21 or time.hour < 5) is night


def test_only_animals_move() -> None:
    blank = frames(5, Scene(2))
    walking = frames(5, Scene(2, "zebra", 1))
    still = np.abs(blank[0] - blank[2])[:110]
    moved = np.abs(walking[0] - walking[2])[:110]
    assert (still.max(axis=2) > 60).mean() < 0.001
    assert (moved.max(axis=2) > 60).mean() > 0.01


def test_more_animals_cover_more_of_the_landscape() -> None:
    def covered(count: int) -> float:
        shares = []
        for seed in range(6):
            (blank,) = frames(seed, Scene(2, n_frames=1))
            (seen,) = frames(seed, Scene(2, "boar", count, n_frames=1))
            shares.append((np.abs(seen - blank)[:110].max(axis=2) > 40).mean())
        return float(np.mean(shares))

    assert covered(1) < covered(2) < covered(3)


def test_the_date_banner_is_black_with_white_writing() -> None:
    (raw,) = draw_event(0, Scene(0, n_frames=1))
    banner = view(raw)[-24:, :, 0]
    assert np.median(banner) < 30
    assert banner.max() > 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


def test_written_scenes_are_a_table_of_events_with_four_broken_files(folder: Path) -> None:
    scenes = write_scenes(str(folder), n_events=24, n_locations=5, seed=0)
    with Path(scenes.csv_uri).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == "event,image1,image2,image3,species,count,location,night"
    assert len({row["event"] for row in rows}) == 24
    assert {row["location"] for row in rows} == {f"L{k:02d}" for k in range(5)}
    assert {row["species"] for row in rows} == {"blank", "boar", "giraffe", "zebra"}
    assert all((row["species"] == "blank") == (row["count"] == "0") for row in rows)
    assert {row["night"] for row in rows} == {"yes", "no"}

    expected = {
        "truncated": Failure.TRUNCATED,
        "not an image": Failure.UNSUPPORTED,
        "missing": None,
        "empty": Failure.UNREADABLE,
    }
    assert sorted(scenes.broken.values()) == sorted(expected)
    n_frames = set()
    for row in rows:
        columns = [c for c in ("image1", "image2", "image3") if row[c]]
        assert columns == ["image1", "image2", "image3"][: len(columns)]
        n_frames.add(len(columns))
        for column in columns:
            path = folder / row[column]
            kind = scenes.broken.get(row[column])
            assert path.parent == folder / row["location"]
            assert path.name == f"{row['event']}_{column[-1]}.jpg"
            assert path.exists() == (kind != "missing")
            if path.exists():
                answer = decode(
                    path.read_bytes(), smallest_side=64, max_pixels=10**6, truncated="fail"
                )
                assert (answer if isinstance(answer, Failure) else None) == expected.get(kind or "")
    assert len({Path(uri).parent for uri in scenes.broken}) > 1
    assert n_frames == {1, 2, 3}


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        write_scenes(str(tmp_path / name), n_events=3, n_locations=2, seed=9)
        digests.append(
            {
                path.name: sha256(path.read_bytes()).hexdigest()
                for path in (tmp_path / name).rglob("*.jpg")
            }
        )
    assert digests[0] == digests[1]
    assert 3 <= len(digests[0]) <= 9


@pytest.mark.parametrize("n_events", [1, 15, 16, 17])
def test_few_events_have_four_broken_files_or_none(n_events: int, tmp_path: Path) -> None:
    scenes = write_scenes(str(tmp_path), n_events=n_events, n_locations=2, seed=1)
    assert len(scenes.broken) == (4 if n_events >= 16 else 0)
