"""Pages in a real browser: what it loads, what it complains about, and how wide they get."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finished_search import HEADS, search_of
from finished_training import SPECIES, training_of

from ctc_ray.reports.search import search_page
from ctc_ray.reports.training import training_page

sync_api = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")

LONG = "Crested_porcupine_of_a_very_long_name_without_any_space_in_it" * 3
NASTY = (
    "</script><script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\">"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("lion", LONG, NASTY, "a b")
    classes = [{**row, "class": name} for row, name in zip(SPECIES["classes"], names, strict=True)]
    heads = {"species": SPECIES | {"classes": classes}, NASTY: SPECIES, LONG: SPECIES}
    path = tmp_path_factory.mktemp("page") / "training.html"
    path.write_bytes(training_page(training_of(n_epochs=12, **heads)))
    return path


def opened(browser: Any, path: Path, width: int, scheme: str) -> tuple[Any, list[str], list[str]]:
    """The page as opened; the requests that it makes and what it says, which grow later."""
    view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    requests: list[str] = []
    said: list[str] = []
    view.on("request", lambda request: requests.append(request.url))
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    view.goto(path.as_uri())
    return view, requests, said


@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_drawn_without_network_complaints_or_overflow(
    browser: Any, file: Path, width: int, scheme: str
) -> None:
    view, requests, said = opened(browser, file, width, scheme)
    n_charts = view.locator("figure").count()
    view.wait_for_function(
        "n => document.querySelectorAll('.chart svg').length === n", arg=n_charts
    )
    assert n_charts == 1 + 1 + 3  # loss, learning rate, metrics of each head
    assert requests == [file.as_uri()]
    assert said == []
    assert view.title().startswith("Training of species")
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    ends = view.evaluate(
        "[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().right)"
    )
    assert 0 < max(ends) <= width
    paper = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
    view.close()


def test_the_values_of_an_epoch_are_shown_where_the_pointer_is(browser: Any, file: Path) -> None:
    view = browser.new_page(viewport={"width": 1200, "height": 800})
    view.goto(file.as_uri())
    chart = view.locator(".chart svg").first
    chart.wait_for()
    box = chart.bounding_box()
    for x in (0.5, 0.55):
        view.mouse.move(box["x"] + x * box["width"], box["y"] + 80)
    shown = view.locator("#vg-tooltip-element.visible")
    shown.wait_for()
    name, epoch, *values = shown.inner_text().split()
    assert name == "epoch"
    assert values == ["training", f"{2 / int(epoch):.4g}", "validation", f"{3 / int(epoch):.4g}"]
    view.close()


def test_charts_follow_when_the_reader_turns_to_the_dark(browser: Any, file: Path) -> None:
    view = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme="light")
    view.goto(file.as_uri())
    light, dark = "rgb(92, 92, 92)", "rgb(162, 166, 173)"
    is_drawn_in = """colour => {
        const label = document.querySelector('.role-axis-label text');
        return label && getComputedStyle(label).fill === colour;
    }"""
    view.wait_for_function(is_drawn_in, arg=light)
    view.emulate_media(color_scheme="dark")
    view.wait_for_function(is_drawn_in, arg=dark)
    view.close()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "trials.html"
    options = (NASTY, LONG, 'it\'s "quoted"')
    importance = {NASTY: 0.7, LONG: 0.3}
    path.write_bytes(
        search_page(search_of(60, options=options, heads=HEADS, importance=importance))
    )
    return path


@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_search_is_drawn_without_network_complaints_or_overflow(
    browser: Any, searched: Path, width: int, scheme: str
) -> None:
    view, requests, said = opened(browser, searched, width, scheme)
    view.wait_for_function("document.querySelectorAll('.chart svg').length === 7")
    assert view.locator("figure").count() == 1 + 2 + 1 + 3  # settings, progress, importance, front
    assert requests == [searched.as_uri()]
    assert said == []
    assert view.title() == "Search for val_macro_f1"
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    ends = view.evaluate(
        "[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().right)"
    )
    assert 0 < max(ends) <= width
    view.close()


def test_a_line_says_which_trial_it_is_and_a_name_opens_its_configuration(
    browser: Any, searched: Path
) -> None:
    view = browser.new_page(viewport={"width": 1200, "height": 800})
    view.goto(searched.as_uri())
    lines = view.locator(".chart").first.locator("svg .mark-line path")
    lines.first.wait_for()
    assert lines.count() == 2 * 58  # what is seen, and what the pointer meets; two trials failed
    lines.last.scroll_into_view_if_needed()
    best = view.locator("dd a").inner_text()
    box = lines.last.evaluate(
        "path => { const p = path.getPointAtLength(path.getTotalLength()), "
        "m = path.getScreenCTM(); return [m.a * p.x + m.e - 3, m.d * p.y + m.f] }"
    )
    view.mouse.move(box[0] - 1, box[1])
    view.mouse.move(*box)
    shown = view.locator("#vg-tooltip-element.visible")
    shown.wait_for()
    assert shown.inner_text().split()[:2] == ["trial", best]
    configuration = view.locator("#trial-00004")
    assert not configuration.is_visible()
    view.locator("a[href='#trial-00004']").last.click()
    configuration.wait_for()
    view.close()
