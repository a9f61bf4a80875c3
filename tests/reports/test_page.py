import json
import re

import pytest

from ctc_ray.reports.charts import Line, LineChart, for_page, javascript
from ctc_ray.reports.page import Chart, Facts, Section, Table, Text, page

NASTY = "</script><script>alert('x')</script> & <b>\"red\"</b> {{ 7 * 7 }} {% raw %}"
CHART = LineChart(NASTY, [Line(NASTY, [(1, 0.5), (2, 0.7)], NASTY)], NASTY, marked=(2, NASTY))


def of_everything(text: str) -> bytes:
    parts = [
        Facts([(text, text)]),
        Chart(text, for_page(CHART)),
        Table(text, [text, text], [[text, text]]),
        Text(text),
    ]
    return page(text, [Section(text, parts), Section(text, parts, is_folded=True)])


def test_nothing_that_is_shown_is_read_as_html() -> None:
    html = of_everything(NASTY).decode().replace(javascript(), "")
    assert "alert" in html
    assert "<b>" not in html
    assert "<script>alert" not in html
    assert html.count("</script>") == 2 + 2  # of two charts, of Vega and of the code that uses it
    assert "{{ 7 * 7 }}" in html


def test_a_chart_comes_out_as_it_was_put_in() -> None:
    html = of_everything(NASTY).decode()
    first = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert first is not None
    assert json.loads(first[1]) == for_page(CHART)


def test_equal_content_gives_equal_bytes() -> None:
    assert of_everything(NASTY) == of_everything(NASTY)


def test_the_code_that_draws_charts_is_in_a_page_once_or_not_at_all() -> None:
    assert of_everything("x").decode().count(javascript()) == 1
    assert len(page("t", [Section("s", [Text("x")])])) < 5000


def test_a_page_names_no_address_that_a_browser_loads_from() -> None:
    html = of_everything("x").decode().replace(javascript(), "")
    assert "src=" not in html
    assert html.count("https://") == html.count('"$schema": "https://') == 2


def test_values_are_written_for_people() -> None:
    rows = [["lion", 12345, 0.98765, None]]
    html = page(
        "t", [Section("s", [Table("classes", ["class", "n", "recall", "F1"], rows)])]
    ).decode()
    assert re.findall(r"<td>(.*?)</td>", html) == ["12,345", "0.988", "\N{EN DASH}"]


def test_a_chart_with_a_number_that_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        page("t", [Section("s", [Chart("c", {"x": float("nan")})])])
