from typing import Any

import pytest

from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.config.base import build
from ctc_ray.errors import ConfigError, UsageError

BASE = {"predictions_uri": "p", "output_uri": "o"}


def config(**fields: Any) -> AggregateConfig:
    return build(AggregateConfig, {**BASE, **fields}, where="test")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"events_uri": "i", "event_gap_s": 0}, "given: --events-uri, --event-gap-s"),
        ({"event_gap_s": 0, "by": ["day"]}, "given: --event-gap-s, --by"),
        ({"event_gap_s": -1}, "event_gap_s"),
        ({"by": ["day", "day"]}, "a name is given twice"),
        ({"top_k": 0}, "top_k"),
        ({"aggregation": "median"}, "aggregation"),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UsageError), match=message):
        config(**fields)


@pytest.mark.parametrize("fields", [{}, {"events_uri": "i"}, {"event_gap_s": 0}, {"by": ["day"]}])
def test_at_most_one_kind_of_other_events(fields: dict[str, Any]) -> None:
    assert config(**fields).aggregation == "mean"
