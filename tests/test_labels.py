import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import LabelError
from ctc_ray.labels import LabelSpace

MISSING = -100
SPACE = LabelSpace({"species": ("cat", "dog"), "count": ("1", "10", "2")})


def test_classes_are_sorted_as_strings_and_nulls_are_no_class():
    table = pa.table({"n": ["2", "10", None, "1", "2"], "s": ["dog", "Cat", "cat", None, "é"]})
    space = LabelSpace.from_table(table, {"count": "n", "species": "s"})
    assert space.heads == ("count", "species")
    assert space.classes["count"] == ("1", "10", "2")
    assert space.classes["species"] == ("Cat", "cat", "dog", "é")


def test_the_order_of_rows_does_not_change_the_classes():
    table = pa.table({"s": ["b", "a", None, "c"]})
    turned = table.take([3, 2, 1, 0])
    columns = {"species": "s"}
    assert LabelSpace.from_table(table, columns) == LabelSpace.from_table(turned, columns)


def test_encode_gives_the_place_of_the_class():
    codes = SPACE.encode("count", pa.array(["2", "1", "10"]), missing=MISSING)
    assert codes.tolist() == [2, 0, 1]


def test_a_missing_label_is_the_missing_index():
    codes = SPACE.encode("species", pa.array([None, "dog", None], pa.string()), missing=MISSING)
    assert codes.tolist() == [MISSING, 1, MISSING]


@pytest.mark.parametrize("label", ["fox", "Cat", " cat", "", "-1"])
def test_an_unknown_class_is_an_error_and_not_missing(label):
    with pytest.raises(
        LabelError, match=rf"^'{label}' is not a class of head 'species'; .*cat, dog$"
    ):
        SPACE.encode("species", pa.array(["cat", None, label]), missing=MISSING)


def test_no_labels_are_no_codes():
    for none in (pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        assert SPACE.encode("species", none, missing=MISSING).tolist() == []


classes = st.lists(st.sampled_from(["a", "b", "c", "10", "9", "é", " "]), min_size=1, unique=True)


@given(classes, st.data())
def test_decoding_what_was_encoded_is_identity(classes, data):
    space = LabelSpace({"species": tuple(classes)})
    labels = data.draw(st.lists(st.sampled_from(classes)))
    cut = data.draw(st.integers(0, len(labels)))
    chunks = pa.chunked_array([labels[:cut], labels[cut:]], pa.string())
    codes = space.encode("species", chunks, missing=MISSING)
    assert space.decode("species", codes).to_pylist() == labels


@given(st.dictionaries(st.sampled_from(["species", "count", "x"]), classes, min_size=1))
def test_json_reads_back_in_the_same_order(classes):
    space = LabelSpace({head: tuple(names) for head, names in classes.items()})
    again = LabelSpace.from_json(space.to_json())
    assert again == space
    assert again.heads == space.heads


def test_selected_heads_come_in_the_order_asked_for():
    space = SPACE.select(["count", "species"])
    assert space.heads == ("count", "species")
    assert space.n_classes("count") == 3


def test_an_unknown_head_is_an_error_that_names_the_known_ones():
    message = r"^head 'sex' not found; heads are species, count$"
    with pytest.raises(LabelError, match=message):
        SPACE.n_classes("sex")
    with pytest.raises(LabelError, match=message):
        SPACE.select(["species", "sex"])
    with pytest.raises(LabelError, match=message):
        SPACE.encode("sex", pa.array(["f"]), missing=MISSING)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "needs at least one head"),
        ({"species": ("cat",), "sex": ()}, "head 'sex' has no class"),
        ({"species": ("cat", "dog", "cat")}, "head 'species' names a class twice"),
    ],
)
def test_a_label_space_that_makes_no_sense_is_refused(classes, message):
    with pytest.raises(LabelError, match=message):
        LabelSpace(classes)


def test_a_head_without_any_label_is_refused():
    table = pa.table({"s": pa.array([None, None], pa.string())})
    with pytest.raises(LabelError, match="head 'species' has no class: no row is labelled"):
        LabelSpace.from_table(table, {"species": "s"})
