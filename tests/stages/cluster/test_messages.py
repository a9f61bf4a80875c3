import logging

import pytest
import ray

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


@pytest.mark.ray
def test_the_work_goes_on_when_messages_are_lost(local_ray: None) -> None:
    with WorkerLogRelay(logging.getLogger("tests.listener"), every_s=0.05) as listener:
        ray.kill(listener.mailbox, no_restart=True)
        listener._stopped.wait(0.3)
        assert listener._thread.is_alive()
