import logging

import pytest

from ctc_ray.stages.cluster.messages import WorkerLogRelay


@pytest.mark.ray
def test_messages_of_workers_are_logged_on_the_driver(
    local_ray: None, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = logging.getLogger("tests.listener")
    with caplog.at_level(logging.INFO), WorkerLogRelay(receiver) as listener:
        for text in ("first", "second"):
            listener.mailbox.put.remote(text)
    assert [record.getMessage() for record in caplog.records] == ["first", "second"]
