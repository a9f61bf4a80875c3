import pytest

from ctc_ray.files.retries import PAUSES_S, UnusableStoreError, patiently


class Store:
    """Fails so many times, then answers."""

    def __init__(self, n_failures: int, error: Exception | None = None) -> None:
        self.n_failures, self.n_asked = n_failures, 0
        self.error = error or ConnectionError("s3://b/a.jpg: cut")
        self.pauses_s: list[float] = []

    def ask(self) -> str:
        self.n_asked += 1
        if self.n_asked <= self.n_failures:
            raise self.error
        return "answer"

    def patiently(self) -> str:
        return patiently(self.ask, sleep=self.pauses_s.append)


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


def test_what_fails_to_the_end_is_the_last_error():
    store = Store(99)
    with pytest.raises(ConnectionError, match=r"^s3://b/a\.jpg: cut"):
        store.patiently()
    assert store.n_asked == 6


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("not there"),
        PermissionError("refused"),
        FileExistsError("there"),
        UnusableStoreError("no credentials"),
        ValueError("a zero byte"),
    ],
)
def test_what_stays_so_is_not_asked_for_again(error):
    store = Store(1, error)
    with pytest.raises(type(error), match=str(error)):
        store.patiently()
    assert (store.n_asked, store.pauses_s) == (1, [])
