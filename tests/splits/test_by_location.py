import csv
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError
from ctc_ray.splits.by_location import split_by_location
from ctc_ray.splits.report import classes_not_in_every_split, leakage, split_shares

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def rows_of(rows):
    """A table of rows (event, location, class)."""
    names = ("capture_event_id", "location_id", "label_s")
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    return pa.table(
        {n: pa.array(list(c), pa.string()) for n, c in zip(names, columns, strict=True)}
    )


some_rows = st.lists(
    st.tuples(
        st.sampled_from("efgh"),
        st.one_of(st.none(), st.sampled_from("ABCDEFGHIJ")),
        st.one_of(st.none(), st.sampled_from("xyz")),
    ),
    max_size=40,
)


@given(
    some_rows,
    st.randoms(),
    st.dictionaries(st.sampled_from("ABQ"), st.sampled_from(list(FRACTIONS))),
)
def test_each_location_has_one_split_in_any_row_order_and_fixed_ones_stay(rows, random, fixed):
    found = []
    for _ in range(2):
        splits = split_by_location(rows_of(rows), fractions=FRACTIONS, salt="s", fixed=fixed)
        pairs = {
            (r[1] or f"event {r[0]}", s) for r, s in zip(rows, splits.to_pylist(), strict=True)
        }
        assert len(pairs) == len({location for location, _ in pairs})
        assert all(fixed.get(location, split) == split for location, split in pairs)
        found.append(pairs)
        random.shuffle(rows)
    assert found[0] == found[1]


@given(st.text(max_size=3))
def test_class_of_as_many_locations_as_splits_is_in_every_split(salt):
    rows = [(f"{n}-{k}", f"L{n}", "rare" if n < 3 and k == 0 else "x")
            for n in range(40) for k in range(n + 2)]  # fmt: skip
    table = rows_of(rows)
    splits = split_by_location(table, fractions=FRACTIONS, salt=salt)
    assert classes_not_in_every_split(table, splits, heads=["s"], names=list(FRACTIONS)) == []
    for share in split_shares(splits, FRACTIONS):
        # only whole locations are moved: the deviation is at most the largest one, 41 images
        assert share["share"] == pytest.approx(share["wanted"], abs=41 / len(rows))


def shortfall(chosen, sizes, classes, shares):
    """Splits that lack a class which could be in all of them, and the sum of the deviations."""
    reached = [sum(n for n, k in zip(sizes, chosen, strict=True) if k == split)
               for split in range(len(shares))]  # fmt: skip
    could = [
        {chosen[n] for n in locations} for locations in classes if len(locations) >= len(shares)
    ]
    n_lacking = sum(len(shares) - len(splits) for splits in could)
    return n_lacking, sum(abs(n / sum(sizes) - share)
                          for n, share in zip(reached, shares, strict=True))  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "classes", "shares"),
    [
        ([294, 4, 3, 11, 3, 7, 18], [{0, 1, 2, 3, 5, 6}, {0, 4}], (0.8, 0.2)),
        ([4, 20, 3], [{0, 2}, {0}, {0, 1, 2}], (0.7, 0.15, 0.15)),
        ([15, 2, 4], [{0, 1, 2}, {1}, {2}], (0.7, 0.15, 0.15)),
        ([40, 30, 20, 5, 5], [{0, 1, 2, 3, 4}, {1, 3, 4}], (0.5, 0.3, 0.2)),
    ],
)
@pytest.mark.parametrize("salt", ["", "1", "2"])
def test_few_locations_are_split_as_well_as_can_be(sizes, classes, shares, salt):
    classes_of = [
        [k for k, locations in enumerate(classes) if n in locations] for n in range(len(sizes))
    ]
    rows = [
        (f"{n}-{copy}", f"L{n}", str(own[copy % len(own)]))
        for n, (n_images, own) in enumerate(zip(sizes, classes_of, strict=True))
        for copy in range(n_images)
    ]
    names = [str(k) for k in range(len(shares))]
    splits = split_by_location(
        rows_of(rows), fractions=dict(zip(names, shares, strict=True)), salt=salt
    )
    split_of = dict(zip([row[1] for row in rows], splits.to_pylist(), strict=True))
    chosen = [int(split_of[f"L{n}"]) for n in range(len(sizes))]

    ways = itertools.product(range(len(shares)), repeat=len(sizes))
    best = min(shortfall(way, sizes, classes, shares) for way in ways)
    assert shortfall(chosen, sizes, classes, shares) == pytest.approx(best, abs=0.01)


def test_rare_class_is_divided_by_the_shares_like_all_images():
    # 60 locations of 20 images; 20 of them have a rare animal, 1 to 4 images of it, 50 in all
    rows = [(f"{n}-{k}", f"L{n}", "rare" if n % 3 == 0 and k <= n // 3 % 4 else "x")
            for n in range(60) for k in range(20)]  # fmt: skip
    table = rows_of(rows)
    for salt in "abcde":
        splits = split_by_location(table, fractions=FRACTIONS, salt=salt)
        assert [share["images"] for share in split_shares(splits, FRACTIONS)] == [840, 180, 180]
        rare = splits.filter(pc.equal(table["label_s"], "rare"))
        for share in split_shares(rare, FRACTIONS):  # 35, 7.5 and 7.5 images
            assert share["images"] == pytest.approx(50 * share["wanted"], abs=0.5)


def test_events_without_location_do_not_disturb_the_shares_of_locations():
    sizes = [1150, 390, 610, 1700, 240, 820, 1330, 570, 960, 1490]  # images of the locations
    rows = [(f"{n}-{k}", f"L{n}", "x") for n, size in enumerate(sizes) for k in range(size)]
    rows += [(f"lone-{k}", None, None) for k in range(1600)]
    for salt in "abcde":
        splits = split_by_location(rows_of(rows), fractions=FRACTIONS, salt=salt)
        shares = split_shares(splits, FRACTIONS)
        assert sum(abs(share["share"] - share["wanted"]) for share in shares) < 0.005


@pytest.mark.parametrize("seed", [8, 13, 17])
def test_rare_classes_are_in_every_split_also_of_many_locations(seed):
    random = np.random.default_rng(seed)
    rows = [(f"{n}-{k}", f"L{n}", "x") for n in range(1600) for k in range(1 + n % 3)]
    for rare in range(40):  # each rare class is at four of the same forty locations
        locations = random.choice(40, 4, replace=False)
        rows += [(f"r{rare}-{n}", f"L{n}", f"rare {rare}") for n in locations]
    table = rows_of(rows)
    splits = split_by_location(table, fractions=FRACTIONS, salt="")
    assert classes_not_in_every_split(table, splits, heads=["s"], names=list(FRACTIONS)) == []


def test_fixed_split_without_a_fraction_is_an_error():
    with pytest.raises(
        ConfigError, match="location 'A' is in the split 'dev' already; add that split to"
    ):
        split_by_location(
            rows_of([("e", "A", "x")]), fractions=FRACTIONS, salt="", fixed={"A": "dev"}
        )


@pytest.mark.real_data
@pytest.mark.parametrize("salt", ["", "1", "2", "3", "4", "5"])
def test_real_cameras_keep_the_shares_and_every_class(shared_data, salt):
    uri = shared_data / "annotations" / "snapshot_safari_capture_events" / "data.csv"
    with uri.open() as file:
        rows = [
            (str(n), r["cameraID"], r["snapshotName"]) for n, r in enumerate(csv.DictReader(file))
        ]
    table = rows_of(rows)
    splits = split_by_location(table, fractions=FRACTIONS, salt=salt)
    assert pc.count_distinct(table["location_id"]).as_py() == 180
    assert classes_not_in_every_split(table, splits, heads=["s"], names=list(FRACTIONS)) == []
    assert [found["in_several_splits"] for found in leakage(table, splits)] == [0, 0]
    for share in split_shares(splits, FRACTIONS):
        assert share["share"] == pytest.approx(share["wanted"], abs=0.001)
    for name in pc.unique(table["label_s"]):  # the rarest, the lion, in 587 images
        of_class = splits.filter(pc.equal(table["label_s"], name))
        for share in split_shares(of_class, FRACTIONS):
            assert share["share"] == pytest.approx(share["wanted"], rel=0.02)
