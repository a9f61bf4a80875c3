from collections import Counter
from hashlib import md5

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.selection.samples import stratified_sample

OVER = ["class", "split"]
CLASSES = st.sampled_from(["boar", "zebra", "blank", None])


def rows_of(images: list[tuple[str | None, str | None]]) -> pa.Table:
    ids = [md5(str(row).encode()).hexdigest() for row in range(len(images))]
    columns = {"class": [c for c, _ in images], "split": [s for _, s in images]}
    kinds = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return pa.table({"image_id": ids, **kinds})


IMAGES = st.lists(st.tuples(CLASSES, st.sampled_from(["train", "val", None])), max_size=60)


@given(IMAGES, st.integers(0, 70))
def test_sample_is_as_large_as_asked_and_holds_every_row_once(images, n_images: int) -> None:
    rows = rows_of(images)
    sample = stratified_sample(rows, n_images, over=OVER)
    ids = sample["image_id"].to_pylist()
    assert len(ids) == len(set(ids)) == min(n_images, rows.num_rows)
    known = {row["image_id"]: row for row in rows.to_pylist()}
    assert all(known[row["image_id"]] == row for row in sample.to_pylist())


@given(IMAGES, st.integers(0, 70), st.randoms())
def test_order_of_the_rows_changes_nothing(images, n_images: int, random) -> None:
    rows = rows_of(images)
    order = list(range(rows.num_rows))
    random.shuffle(order)
    shuffled = rows.take(pa.array(order, pa.int64()))
    assert stratified_sample(shuffled, n_images, over=OVER) == stratified_sample(
        rows, n_images, over=OVER
    )


@given(IMAGES, st.integers(1, 70))
def test_classes_are_as_even_as_they_can_be(images, n_images: int) -> None:
    rows = rows_of(images)
    there = Counter(rows["class"].to_pylist())
    taken = Counter(stratified_sample(rows, n_images, over=OVER)["class"].to_pylist())
    most = max(taken.values(), default=0)
    for name, n in there.items():  # a class has fewer images than another only if it has no more
        assert taken[name] >= min(n, most - 1)


def test_rare_class_and_rare_split_are_seen() -> None:
    images = [("boar", "train")] * 500 + [("boar", "val")] * 3 + [("zebra", "train")] * 2
    taken = Counter(
        (row["class"], row["split"])
        for row in stratified_sample(rows_of(images), 8, over=OVER).to_pylist()
    )
    assert taken == {("boar", "train"): 3, ("boar", "val"): 3, ("zebra", "train"): 2}
