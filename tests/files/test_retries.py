import pytest

from ctc_ray.files.retries import PAUSES_S, patiently

FAILED = (
    "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 18\n, Transferred a part"
)


class Store:
    """Fails so many times, then answers."""

    def __init__(self, n_failures: int, error: Exception | None = None) -> None:
        self.n_failures, self.n_asked, self.error = n_failures, 0, error or OSError(FAILED)
        self.pauses_s: list[float] = []

    def ask(self) -> str:
        self.n_asked += 1
        if self.n_asked <= self.n_failures:
            raise self.error
        return "answer"

    def patiently(self) -> str:
        return patiently("s3://b/a.jpg", self.ask, sleep=self.pauses_s.append)


@pytest.mark.parametrize("n_failures", range(len(PAUSES_S) + 1))
def test_what_fails_a_few_times_is_answered_after_longer_and_longer_pauses(n_failures):
    store = Store(n_failures)
    assert store.patiently() == "answer"
    assert store.n_asked == n_failures + 1
    assert len(store.pauses_s) == n_failures
    for pause_s, longest_s in zip(store.pauses_s, PAUSES_S, strict=False):
        assert longest_s / 2 <= pause_s <= longest_s


def test_pauses_of_several_workers_differ():
    stores = [Store(1) for _ in range(5)]
    for store in stores:
        store.patiently()
    assert len({store.pauses_s[0] for store in stores}) > 1


def test_what_fails_to_the_end_is_one_line_that_names_the_object():
    store = Store(99)
    with pytest.raises(ConnectionError, match=r"^s3://b/a\.jpg: AWS Error .*18 , Trans") as raised:
        store.patiently()
    assert "\n" not in str(raised.value)
    assert store.n_asked == 6


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "Path does not exist 'b/a.jpg'"),
        OSError("AWS Error RESOURCE_NOT_FOUND during GetObject operation: "),
        OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation: no"),
        OSError("google::cloud::Status(NOT_FOUND: no such object)"),
    ],
)
def test_what_is_not_there_is_not_asked_for_again(error):
    store = Store(1, error)
    with pytest.raises(FileNotFoundError, match=r"^s3://b/a\.jpg: "):
        store.patiently()
    assert (store.n_asked, store.pauses_s) == (1, [])


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body."),
        OSError("AWS Error INVALID_OBJECT_STATE during GetObject operation: in the archive"),
        OSError("Not a regular file: 'b'"),
        OSError("google::cloud::Status(PERMISSION_DENIED: no)"),
    ],
)
def test_what_is_refused_is_not_asked_for_again(error):
    store = Store(1, error)
    with pytest.raises(PermissionError, match=r"^s3://b/a\.jpg: "):
        store.patiently()
    assert (store.n_asked, store.pauses_s) == (1, [])


def test_an_error_of_another_kind_is_none_of_the_stores():
    store = Store(1, ValueError("a zero byte"))
    with pytest.raises(ValueError, match="zero"):
        store.patiently()
    assert store.n_asked == 1
