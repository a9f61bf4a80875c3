import io
import re

from finished_training import SPECIES, training_of
from PIL import Image

from ctc_ray.reports.charts import javascript
from ctc_ray.reports.training import training_page, training_png


def cells(html: str) -> list[list[str]]:
    """The rows of all tables."""
    rows = re.findall(r"<tr>(.*?)</tr>", html.replace(javascript(), ""))
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", found) for found in rows]


def test_classes_are_listed_by_their_number_of_images() -> None:
    html = training_page(training_of(species=SPECIES)).decode()
    assert cells(html)[-4:] == [
        ["zebra", "9", "0.900", "0.900", "0.900"],
        ["eland", "2", "0.400", "0.400", "0.400"],
        ["lion", "2", "0.500", "0.500", "0.500"],
        ["unseen", "0", "0.000", "\N{EN DASH}", "\N{EN DASH}"],  # no image, no recall
    ]


def test_metrics_by_image_and_by_event_stand_side_by_side() -> None:
    html = training_page(training_of(species=SPECIES)).decode()
    assert ["accuracy", "0.750", "0.875"] in cells(html)
    assert ["number", "12", "\N{EN DASH}"] in cells(html)


def test_the_page_holds_the_configuration_and_the_epoch_that_is_kept() -> None:
    html = training_page(training_of(n_epochs=4, species=SPECIES)).decode()
    assert "dataset_uri: s3://herd/dataset" in html
    assert "<dt>epoch kept</dt><dd>4</dd>" in html
    assert "<dt>its val_loss</dt><dd>0.750</dd>" in html


def test_a_training_of_one_epoch_of_a_head_without_metrics_has_a_report() -> None:
    lonely = training_of(n_epochs=1, species={"classes": []})
    assert b"species" in training_page(lonely)
    assert Image.open(io.BytesIO(training_png(lonely))).format == "PNG"


def test_one_training_gives_one_page_and_one_picture() -> None:
    mine, other = training_of(species=SPECIES), training_of(species=SPECIES)
    assert training_page(mine) == training_page(other)
    assert training_png(mine) == training_png(other)
    longer = training_of(n_epochs=5, species=SPECIES)
    assert training_page(mine) != training_page(longer)
