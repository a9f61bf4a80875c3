import pyarrow as pa
import pytest

from ctc_ray.columns import arrays
from ctc_ray.columns.arrays import TEXT, holds_any


@pytest.mark.parametrize("at_once", [1, 3, 1 << 20])
def test_characters_are_found_wherever_they_are(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(arrays, "_BYTES_AT_ONCE", at_once)
    values = pa.array(["abc", None, "", "d@f", "ghi\\"], TEXT)
    assert holds_any(values, "@")
    assert holds_any(values, "?\\")
    assert not holds_any(values, "?:")
    assert not holds_any(values[:3], "@\\")
    assert holds_any(values[3:4], "@")
    assert not holds_any(values[4:], "@")


def test_no_text_holds_nothing() -> None:
    assert not holds_any(pa.array([], TEXT), "a")
    assert not holds_any(pa.nulls(3, TEXT), "a")
    assert not holds_any(pa.array(["é"], TEXT), "e")
