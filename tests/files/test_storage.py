import contextlib
import errno
import hashlib
import itertools
import multiprocessing
import os
import re
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from builders import create_all
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage


def names(folder_uri: str) -> list[str]:
    return [uri.removeprefix(folder_uri) for uri in storage.list_files(folder_uri)]


# -- reading and writing, on the disk and in an object store ---------------------------------------


def test_what_is_written_reads_back(folder_uri):
    uri = storage.join(folder_uri, "deep", "file.bin")
    storage.write_bytes(uri, b"one")
    assert storage.read_bytes(uri) == b"one"
    assert storage.read_bytes(uri, 2) == b"on"
    assert storage.read_bytes(uri, 9) == b"one"
    storage.write_bytes(uri, b"two")
    assert storage.read_bytes(uri) == b"two"
    assert names(folder_uri) == ["/deep/file.bin"]


def test_pipe_that_nobody_writes_to_is_empty_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert storage.read_bytes(str(tmp_path / "pipe.jpg")) == b""


def test_pieces_become_one_file(folder_uri):
    uri = storage.join(folder_uri, "file.csv")
    storage.write_chunks(uri, (b"x" * n for n in (3, 0, 4)))
    assert storage.read_bytes(uri) == b"x" * 7


def test_a_file_whose_writer_fails_is_not_there(folder_uri):
    def pieces():
        yield b"x" * (6 << 20)  # more than an object store's part
        raise ZeroDivisionError

    storage.write_bytes(storage.join(folder_uri, "other"), b"")
    with pytest.raises(ZeroDivisionError):
        storage.write_chunks(storage.join(folder_uri, "file.csv"), pieces())
    assert names(folder_uri) == ["/other"]


def test_a_file_whose_writer_fails_stays_what_it_was(folder_uri):
    uri = storage.join(folder_uri, "file.csv")
    storage.write_bytes(uri, b"before")
    with pytest.raises(TypeError):
        storage.write_chunks(uri, [b"after", "no bytes"])
    assert storage.read_bytes(uri) == b"before"


def test_exists_is_folder_and_is_file(folder_uri):
    assert not storage.exists(folder_uri)
    assert not storage.is_folder(folder_uri)
    file_uri = storage.join(folder_uri, "a")
    storage.write_bytes(file_uri, b"")
    assert storage.exists(folder_uri)
    assert storage.is_folder(folder_uri)
    assert storage.is_folder(folder_uri + "/")
    assert storage.exists(file_uri)
    assert not storage.is_folder(file_uri)
    assert storage.is_file(file_uri)
    assert not storage.is_file(folder_uri)
    assert not storage.is_file(file_uri + "b")
    assert not storage.exists(file_uri + "b")
    assert not storage.is_folder(folder_uri[:-1])  # a prefix of the name is no folder


def test_files_are_listed_to_any_depth_in_the_order_of_their_bytes(folder_uri):
    for name in ("b.jpg", "a/z.jpg", "a/b/c.jpg", "B.jpg", "é.jpg", ".hidden", "a-b.jpg"):
        storage.write_bytes(storage.join(folder_uri, name), b"")
    assert names(folder_uri) == [
        "/.hidden",
        "/B.jpg",
        "/a-b.jpg",
        "/a/b/c.jpg",
        "/a/z.jpg",
        "/b.jpg",
        "/é.jpg",
    ]
    assert list(storage.list_files(folder_uri + "/")) == list(storage.list_files(folder_uri))


@pytest.mark.parametrize(
    "name", ["two words.jpg", "100%.jpg", "a%20b.jpg", "a#b?c=d&e+f.jpg", "ä\"'\\.jpg", "日本.jpg"]
)
def test_a_listed_name_reads_back(folder_uri, name):
    storage.write_bytes(storage.join(folder_uri, "dir ü", name), name.encode())
    (listed,) = storage.list_files(folder_uri)
    assert listed.endswith("/dir ü/" + name)
    assert storage.read_bytes(listed) == name.encode()
    assert storage.exists(listed)


def test_a_folder_that_is_not_there_cannot_be_listed(folder_uri):
    with pytest.raises(ConfigError, match=re.escape(folder_uri) + ": no such folder"):
        list(storage.list_files(folder_uri))


def test_a_file_that_is_not_there_cannot_be_read(folder_uri):
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(folder_uri, "no"))


def test_a_file_below_a_file_is_not_there(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"a\.csv/b: no such file"):
        storage.read_bytes(str(tmp_path / "a.csv" / "b"))


def test_a_name_that_no_file_can_have_cannot_be_read(folder_uri):
    for name in ("a\0b", "x//y\0"):
        with pytest.raises(OSError, match="no"):
            storage.read_bytes(f"{folder_uri}/no/{name}")


@pytest.mark.s3
def test_a_name_that_cannot_be_asked_for_is_not_there(s3_bucket_uri):
    assert not storage.is_file(f"{s3_bucket_uri}/photos//a.jpg")
    assert not storage.exists(f"{s3_bucket_uri}/photos//a.jpg")


def test_a_cleared_folder_holds_nothing_and_its_neighbours_everything(folder_uri):
    storage.clear_folder(folder_uri)  # nothing there, nothing happens
    for name in ("a", "b/c", "b/d/e"):
        storage.write_bytes(storage.join(folder_uri, name), b"")
    storage.write_bytes(folder_uri + "2/a", b"")
    storage.clear_folder(folder_uri)
    assert not any(storage.exists(storage.join(folder_uri, name)) for name in ("a", "b"))
    assert storage.is_folder(folder_uri) != storage.is_remote(folder_uri)  # which has no folders
    assert storage.exists(folder_uri + "2/a")


def test_a_deleted_file_is_gone(folder_uri):
    uri = storage.join(folder_uri, "a")
    storage.write_bytes(uri, b"")
    storage.delete_file(uri)
    assert not storage.exists(uri)
    storage.delete_file(uri)  # nothing there, nothing happens


def test_digest_is_the_sha256_of_the_content(folder_uri):
    storage.write_bytes(storage.join(folder_uri, "a"), b"abc")
    assert storage.digest(storage.join(folder_uri, "a")) == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    )


def test_json_is_written_in_the_order_of_its_keys(folder_uri):
    storage.write_json(storage.join(folder_uri, "a.json"), {"b": "ü", "a": 1})
    assert storage.read_bytes(storage.join(folder_uri, "a.json")).decode() == (
        '{\n  "b": "ü",\n  "a": 1\n}\n'
    )


# -- the disk --------------------------------------------------------------------------------------


def test_writing_leaves_nothing_beside_the_file(tmp_path):
    storage.write_bytes(str(tmp_path / "a"), b"1")
    with pytest.raises(TypeError):
        storage.write_chunks(str(tmp_path / "b"), [b"1", "no bytes"])
    (tmp_path / "c").mkdir()
    with pytest.raises(IsADirectoryError):
        storage.write_bytes(str(tmp_path / "c"), b"1")
    assert sorted(os.listdir(tmp_path)) == ["a", "c"]


def test_a_name_that_is_not_utf8_is_listed_as_a_file_uri_and_reads_back(tmp_path):
    name = b"caf\xe9 100%.jpg"
    with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
        file.write(b"content")
    (uri,) = storage.list_files(str(tmp_path))
    assert uri == f"file://{tmp_path}/caf%E9%20100%25.jpg"
    assert pa.array([uri])[0].as_py() == uri
    assert storage.read_bytes(uri) == b"content"
    assert storage.exists(uri)
    assert os.fsencode(storage.local_path(uri)).endswith(name)


def test_a_folder_that_is_not_utf8_can_be_a_root(tmp_path):
    root = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xe9"))
    os.mkdir(root)
    with open(os.path.join(root, "a b%.jpg"), "wb") as file:
        file.write(b"content")
    root_uri = storage.absolute(root)
    assert root_uri == f"file://{tmp_path}/%E9"
    assert storage.read_bytes(storage.under_root(root_uri, "a b%.jpg")) == b"content"


def test_a_file_uri_is_decoded():
    assert storage.local_path("file:///a%20b/c") == "/a b/c"
    assert storage.local_path("/a%20b/c") == "/a%20b/c"
    assert not storage.is_remote("file:///a")
    assert not storage.is_remote("a/b")
    assert storage.is_remote("s3://a/b")


@given(st.binary(min_size=1, max_size=20).filter(lambda b: not {0, 0x2F} & set(b)))
def test_every_name_of_a_file_becomes_a_string_and_back(name):
    path = os.fsdecode(b"/folder/" + name)
    text = storage.as_text(path)
    text.encode()
    if text != path or not text.startswith("file://"):
        assert storage.local_path(text) == path


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    assert names(str(tmp_path / "root")) == ["/link/x.jpg"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_warned_of(tmp_path, caplog):
    (tmp_path / "closed").mkdir(mode=0)
    try:
        assert list(storage.list_files(str(tmp_path))) == []
    finally:
        os.chmod(tmp_path / "closed", stat.S_IRWXU)
    assert "closed: left out" in caplog.text


def test_clearing_a_folder_leaves_what_its_links_point_to(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "photos")
    (tmp_path / "linked").symlink_to(tmp_path / "out")
    storage.clear_folder(str(tmp_path / "linked"))
    assert os.listdir(tmp_path / "out") == []
    assert (tmp_path / "photos" / "a.jpg").exists()


# -- creating: one winner --------------------------------------------------------------------------


def test_a_file_is_created_once(folder_uri):
    uri = storage.join(folder_uri, "deep", "claim")
    assert storage.create_bytes(uri, b"one")
    assert not storage.create_bytes(uri, b"two")
    assert not storage.create_bytes(uri, b"one")
    assert storage.read_bytes(uri) == b"one"
    assert names(folder_uri) == ["/deep/claim"]
    storage.delete_file(uri)
    assert storage.create_bytes(uri, b"two")


def test_of_threads_that_create_a_file_at_once_one_wins(folder_uri):
    barrier = threading.Barrier(4)

    def run(me: int) -> list[bool]:
        won = []
        for trial in range(20):
            barrier.wait()
            won.append(storage.create_bytes(f"{folder_uri}/{trial}", b"%d" % me * 1000))
        return won

    with ThreadPoolExecutor(4) as pool:
        assert_one_winner(folder_uri, list(pool.map(run, range(4))))


def test_of_processes_that_create_a_file_at_once_one_wins(folder_uri):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(3, context) as pool:
        barrier = manager.Barrier(3)
        runs = [pool.submit(create_all, me, folder_uri, barrier) for me in range(3)]
        assert_one_winner(folder_uri, [run.result(100) for run in runs])


def assert_one_winner(folder_uri: str, won: list[list[bool]]) -> None:
    assert [sum(trial) for trial in zip(*won, strict=True)] == [1] * 20
    for trial, wins in enumerate(zip(*won, strict=True)):
        winner = b"%d" % wins.index(True)
        assert storage.read_bytes(f"{folder_uri}/{trial}") == winner * 1000
    assert len(names(folder_uri)) == 20


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_a_file_is_created_once_too(tmp_path, monkeypatch, number):
    def link(*_: object) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(os, "link", link)
    assert storage.create_bytes(str(tmp_path / "claim"), b"one")
    assert not storage.create_bytes(str(tmp_path / "claim"), b"two")
    assert storage.read_bytes(str(tmp_path / "claim")) == b"one"
    assert os.listdir(tmp_path) == ["claim"]


def test_a_link_that_took_effect_although_its_answer_is_lost_is_a_win(tmp_path, monkeypatch):
    link = os.link

    def lost(*paths: str) -> None:
        link(*paths)
        raise FileExistsError(errno.EEXIST, "asked twice")

    monkeypatch.setattr(os, "link", lost)
    assert storage.create_bytes(str(tmp_path / "claim"), b"one")
    assert not storage.create_bytes(str(tmp_path / "claim"), b"two")


@pytest.mark.s3
def test_an_object_whose_creation_is_not_answered_is_its_creators(flaky_uri, faults):
    uri = storage.join(flaky_uri, "claim")
    faults.lose_every = 1
    assert storage.create_bytes(uri, b"mine")
    assert not storage.create_bytes(uri, b"another's")
    assert storage.read_bytes(uri) == b"mine"


@pytest.mark.s3
def test_a_conflict_of_two_that_create_is_no_defeat(flaky_uri, faults):
    faults.refuse_every, faults.status, faults.refuse_at_most = 2, 409, 2
    next(faults.requests)  # a PUT is refused, the GET after it is not
    assert storage.create_bytes(storage.join(flaky_uri, "claim"), b"mine")
    assert faults.refused == 2


# -- time, owners and the N-th operation -----------------------------------------------------------


def test_a_file_has_the_time_of_its_store(folder_uri):
    uri = storage.join(folder_uri, "a")
    before = datetime.now(UTC).replace(microsecond=0)
    storage.write_bytes(uri, b"")
    assert before <= storage.modified_at(uri) <= storage.now_at(folder_uri) <= datetime.now(UTC)
    assert names(folder_uri) == ["/a"]
    with pytest.raises(FileNotFoundError, match="/b"):
        storage.modified_at(storage.join(folder_uri, "b"))


def test_half_written_files_of_others_that_write_stay(tmp_path, monkeypatch):
    mine, dead, other = "a" * 32, "d" * 32, "f" * 32
    monkeypatch.setattr(storage, "_owner", storage.owner())
    storage.set_owner(mine)
    uri, found = str(tmp_path / ("ü" * 120)), []

    def pieces():
        found.extend(storage.HALF_WRITTEN.fullmatch(name)["owner"] for name in os.listdir(tmp_path))
        yield b""

    storage.write_chunks(uri, pieces())
    assert found == [storage.owner()] == [mine]
    for owner in (mine, dead, other):
        (tmp_path / f".part.parquet.{owner}-12345678").touch()
    (tmp_path / f".older.{dead}").touch()
    storage.delete_half_written(str(tmp_path), lambda owner: owner in (mine, dead))
    assert names(str(tmp_path)) == [f"/.part.parquet.{other}-12345678", "/" + "ü" * 120]


@pytest.mark.parametrize("token", ["", "a" * 31, "A" * 32, "../" + "a" * 29])
def test_an_owners_token_is_32_hex_digits(token):
    with pytest.raises(ValueError, match="32 hex digits"):
        storage.set_owner(token)


def every_function(folder_uri: str) -> dict[str, Callable[[], object]]:
    uri = storage.join(folder_uri, "a")
    return {
        "write write_bytes": lambda: storage.write_bytes(uri, b"1"),
        "write write_chunks": lambda: storage.write_chunks(uri, [b"1"]),
        "create create_bytes": lambda: storage.create_bytes(uri + "b", b"1"),
        "read read_bytes": lambda: storage.read_bytes(uri),
        "read digest": lambda: storage.digest(uri),
        "open open_file": lambda: storage.open_file(uri),
        "open open_stream": lambda: storage.open_stream(uri),
        "stat exists": lambda: storage.exists(uri),
        "stat is_file": lambda: storage.is_file(uri),
        "stat is_folder": lambda: storage.is_folder(uri),
        "stat modified_at": lambda: storage.modified_at(uri),
        "list list_files": lambda: list(storage.list_files(folder_uri)),
        "list folders_in": lambda: storage.folders_in(folder_uri),
        "delete delete_file": lambda: storage.delete_file(uri + "b"),
        "delete clear_folder": lambda: storage.clear_folder(folder_uri),
        "delete delete_folder": lambda: storage.delete_folder(folder_uri),
    }


def test_every_function_is_an_operation_that_a_test_can_count_and_fail(folder_uri, monkeypatch):
    seen: list[str] = []

    def count(name, uri, call):
        assert uri.startswith(folder_uri)
        seen.append(name)
        return call()

    for what, call in every_function(folder_uri).items():
        seen.clear()
        monkeypatch.setattr(storage, "operation", count)
        call()
        assert what.split()[0] in seen, what

    def fail(name, uri, call):
        raise ZeroDivisionError

    monkeypatch.setattr(storage, "operation", fail)
    for call in every_function(folder_uri).values():
        with pytest.raises(ZeroDivisionError):
            call()


@pytest.mark.parametrize("takes_effect", [False, True])
def test_a_file_is_whole_or_not_there_whichever_operation_of_its_writing_fails(
    folder_uri, monkeypatch, takes_effect
):
    real, uri = storage.operation, storage.join(folder_uri, "a")
    storage.write_bytes(storage.join(folder_uri, "b"), b"")
    for n in range(3):
        count = itertools.count()

        def fail(name, uri, call, count=count, n=n):
            is_it = next(count) == n
            if is_it and not takes_effect:
                raise OSError(errno.EIO, "pulled out")
            result = real(name, uri, call)
            if is_it:
                raise OSError(errno.EIO, "pulled out")
            return result

        monkeypatch.setattr(storage, "operation", fail)
        with contextlib.suppress(OSError):
            storage.write_bytes(uri, b"whole")
        monkeypatch.setattr(storage, "operation", real)
        assert names(folder_uri) in (["/b"], ["/a", "/b"])
        if storage.exists(uri):
            assert storage.read_bytes(uri) == b"whole"
            storage.delete_file(uri)


# -- names -----------------------------------------------------------------------------------------


def test_join_keeps_parts_inside_the_folder():
    assert storage.join("a", "b", "c.txt") == "a/b/c.txt"
    assert storage.join("a/", "/b/", "c") == "a/b/c"
    assert storage.join("/", "b") == "/b"
    assert storage.join("/") == "/"
    assert storage.join("s3://bucket", "b") == "s3://bucket/b"
    assert storage.join("s3://bucket/p/", "b") == "s3://bucket/p/b"
    assert storage.join("file:///a%20b", "c d") == "file:///a%20b/c%20d"


@pytest.mark.parametrize(
    ("root", "uri", "expected"),
    [
        (None, "a.jpg", "a.jpg"),
        (None, "/data/a.jpg", "/data/a.jpg"),
        ("/root", "a.jpg", "/root/a.jpg"),
        ("/root/", "./a/b.jpg", "/root/a/b.jpg"),
        ("/root", "/data/a.jpg", "/root/data/a.jpg"),
        ("s3://bucket/p", "/data/a.jpg", "s3://bucket/p/data/a.jpg"),
        ("/root", "s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("/root", "file:///a%E9.jpg", "file:///a%E9.jpg"),
    ],
)
def test_where_a_sources_file_lies_under_a_root(root, uri, expected):
    assert storage.under_root(root, uri) == expected


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("out/") == str(tmp_path / "out")
    assert storage.absolute("file:///a%20b") == "/a b"
    assert storage.absolute("/") == "/"
    for spelling in ("s3://bucket/a", "s3://bucket/a/"):
        assert storage.absolute(spelling) == "s3://bucket/a"


@pytest.mark.parametrize("uri", ["ftp://host/a", "s3:///a", "s4://bucket/a", "://a"])
def test_a_scheme_that_is_not_known_is_a_config_error(uri):
    with pytest.raises(ConfigError, match="^" + re.escape(uri.rpartition("/")[0])) as raised:
        storage.read_bytes(uri)
    assert "\n" not in str(raised.value)


@pytest.mark.s3
def test_a_bucket_itself_is_a_folder(s3_bucket_uri):
    for root in (s3_bucket_uri, s3_bucket_uri + "/"):
        storage.write_bytes(storage.join(root, "a/b"), b"1")
        assert storage.is_folder(root)
        assert list(storage.list_files(root)) == [s3_bucket_uri + "/a/b"]
        storage.clear_folder(root)
        assert list(storage.list_files(root)) == []
        assert storage.is_folder(root)


@pytest.mark.s3
def test_a_bucket_that_does_not_exist_holds_nothing(s3_bucket_uri):
    assert not storage.exists(s3_bucket_uri + "x/a")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(s3_bucket_uri + "x/a")
    with pytest.raises(FileNotFoundError, match=r"^s3://test-[0-9a-f]+x/a: no such bucket$"):
        storage.write_bytes(s3_bucket_uri + "x/a", b"")


# -- an object store that fails --------------------------------------------------------------------


@pytest.mark.s3
@pytest.mark.parametrize("status", [503, 400])
def test_nothing_is_lost_by_a_store_that_refuses_and_cuts(flaky_uri, faults, status):
    faults.refuse_every, faults.status, faults.cut_every = 4, status, 3
    contents = {storage.join(flaky_uri, "a", f"{i}"): bytes([i]) * 5000 for i in range(8)}
    for uri, content in contents.items():
        storage.write_bytes(uri, content)
    assert list(storage.list_files(storage.join(flaky_uri, "a"))) == sorted(contents)
    assert {uri: storage.read_bytes(uri) for uri in contents} == contents
    assert {uri: storage.read_bytes(uri, 9) for uri in contents} == {
        uri: content[:9] for uri, content in contents.items()
    }
    assert {storage.digest(uri) for uri in contents} == {
        hashlib.sha256(content).hexdigest() for content in contents.values()
    }
    assert all(map(storage.is_file, contents))
    storage.clear_folder(flaky_uri)
    assert list(storage.list_files(flaky_uri)) == []
    assert faults.refused > 5
    assert faults.cut > 2


@pytest.mark.s3
def test_a_store_that_fails_to_the_end_is_a_connection_error(flaky_uri, faults):
    uri = storage.join(flaky_uri, "a")
    storage.write_bytes(uri, b"1")
    faults.refuse_every, faults.status = 1, 400
    calls = {
        "read": lambda: storage.read_bytes(uri),
        "write": lambda: storage.write_bytes(uri, b"2"),
        "exists": lambda: storage.exists(uri),
        "list": lambda: list(storage.list_files(flaky_uri)),
        "delete": lambda: storage.delete_file(uri),
        "digest": lambda: storage.digest(uri),
    }
    for what, call in calls.items():
        before = faults.refused
        with pytest.raises(ConnectionError, match=f"^{flaky_uri}"):
            call()
        assert faults.refused - before >= 6, what
    faults.refuse_every = 0
    assert storage.read_bytes(uri) == b"1"


@pytest.mark.s3
def test_an_object_that_is_denied_is_asked_for_once(flaky_uri, faults):
    uri = storage.join(flaky_uri, "secret.jpg")
    storage.write_bytes(uri, b"1")
    faults.deny = "secret"
    with pytest.raises(PermissionError, match=r"secret\.jpg: the store refuses access \(403"):
        storage.read_bytes(uri)
    assert faults.denied == 1
    with pytest.raises(FileNotFoundError, match="other"):
        storage.read_bytes(storage.join(flaky_uri, "other.jpg"))
