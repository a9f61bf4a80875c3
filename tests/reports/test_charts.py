import io
import math

from PIL import Image

from ctc_ray.reports.charts import Line, LineChart, for_page, sheet_png


def chart(n: int, title: str = "loss") -> LineChart:
    lines = [
        Line(name, [(x, k + 1 / x) for x in range(1, n + 1)])
        for k, name in enumerate(("train", "val"))
    ]
    return LineChart(title, lines, "epoch", marked=(1, "kept"))


def all_points(spec: dict) -> list[dict]:
    """The points of all layers."""
    return [row for values in spec["datasets"].values() for row in values if "y" in row]


def test_every_point_of_a_long_history_is_in_the_chart() -> None:
    assert len(all_points(for_page(chart(9000)))) == 2 * 9000


def test_points_that_are_not_finite_are_left_out() -> None:
    line = Line("val", [(1, math.nan), (2, 0.5), (3, math.inf), (4, -math.inf)])
    spec = for_page(LineChart("loss", [line], "epoch"))
    assert [(row["x"], row["y"]) for row in all_points(spec)] == [(2, 0.5)]
    assert sheet_png([LineChart("loss", [line], "epoch")], columns=2)


def test_charts_lie_in_rows_on_the_sheet() -> None:
    one, two, three = (
        Image.open(io.BytesIO(sheet_png([chart(3)] * n, columns=2))).size for n in (1, 2, 3)
    )
    assert two[0] > 1.9 * one[0]
    assert two[1] == one[1]
    assert three[0] == two[0]
    assert three[1] > 1.9 * one[1]


def test_equal_charts_give_equal_bytes_and_other_ones_give_others() -> None:
    assert sheet_png([chart(3)], columns=1) == sheet_png([chart(3)], columns=1)
    assert sheet_png([chart(3)], columns=1) != sheet_png([chart(4)], columns=1)


def test_lines_of_one_name_and_other_dashes_are_lines_of_their_own() -> None:
    lines = [Line("accuracy", [(1, 0.1), (2, 0.2)], dash) for dash in ("images", "events")]
    drawn = for_page(LineChart("metrics", lines, "epoch"))["layer"][0]["encoding"]
    assert drawn["color"]["scale"]["domain"] == ["accuracy"]
    assert drawn["strokeDash"]["scale"]["domain"] == ["images", "events"]
