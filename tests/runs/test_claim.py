"""One owner at a time, with real processes, on the disk and in an object store."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import files_below

from ctc_ray.errors import OutputInUseError
from ctc_ray.files import storage
from ctc_ray.runs import claim
from ctc_ray.runs.claim import claimed
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.output_folder import open_run

N_TRIALS = 5

# Begins a run, writes a file in its own name, and finishes. Prints who owned the folder.
_JOB = """
import json, sys, time
from ctc_ray.errors import CtcError
from ctc_ray.files import storage
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.output_folder import open_run

folder, at, pause_s, *seeds = sys.argv[1:]
fields = {"seed": seeds[0]}
time.sleep(max(0, float(at) - time.time()))
try:
    with open_run(folder, "bundle", fields, overwrite=False) as run:
        if isinstance(run, Manifest):
            print("complete")
        else:
            print("mine", flush=True)
            storage.write_bytes(f"{folder}/seed", seeds[0].encode())
            time.sleep(float(pause_s))
            run.claim.require_owner()
            run.finish(Manifest(kind="bundle", config=fields))
except CtcError as error:
    print("refused", " ".join(str(error).split()))
"""


def start(folder_uri: str, *, seed: str, at: float = 0, pause_s: float = 0.3) -> subprocess.Popen:
    arguments = [folder_uri, str(at), str(pause_s), seed]
    return subprocess.Popen(
        [sys.executable, "-c", _JOB, *arguments], stdout=subprocess.PIPE, text=True
    )


def said(job: subprocess.Popen) -> str:
    out, _ = job.communicate(timeout=60)
    assert job.returncode == 0
    return out.strip()


@pytest.mark.parametrize("seeds", [("1", "1", "1"), ("1", "2", "3")], ids=["equal", "different"])
def test_of_jobs_that_begin_in_the_same_moment_one_owns_the_folder(folder_uri, seeds):
    for trial in range(N_TRIALS):
        uri = f"{folder_uri}/{trial}"
        at = time.time() + 1.0
        answers = [said(job) for job in [start(uri, seed=seed, at=at) for seed in seeds]]
        owners = [seed for seed, text in zip(seeds, answers, strict=True) if text == "mine"]
        assert len(owners) == 1, answers
        assert storage.read_bytes(f"{uri}/seed").decode() == owners[0]
        refused = [text for text in answers if text.startswith("refused")]
        assert all("ctc train" in text or "another" in text for text in refused), refused
        assert files_below(uri) == ["_manifest.json", "_work/work.json", "seed"]


def test_the_second_command_is_told_who_owns_the_folder_and_since_when(folder_uri):
    job = start(folder_uri, seed="1", pause_s=5)
    assert job.stdout is not None
    assert job.stdout.readline() == "mine\n"
    with (
        pytest.raises(OutputInUseError) as raised,
        open_run(folder_uri, "bundle", {"seed": "1"}, overwrite=False),
    ):
        pass
    text = str(raised.value)
    assert f"ctc train (process {job.pid} on " in text
    assert " UTC; wait for it, or stop it and run this command again" in text
    assert "\n" not in text
    job.kill()
    job.wait()


def test_a_killed_owner_on_this_machine_is_replaced_at_once(folder_uri):
    job = start(folder_uri, seed="1", pause_s=60)
    assert job.stdout is not None
    assert job.stdout.readline() == "mine\n"
    job.send_signal(signal.SIGKILL)
    job.wait()
    began = time.monotonic()
    assert said(start(folder_uri, seed="1", pause_s=0)) == "mine"
    assert time.monotonic() - began < 20
    assert files_below(folder_uri) == ["_manifest.json", "_work/work.json", "seed"]


def of_another_host(folder_uri: str, number: int) -> str:
    """A claim as a process of another machine has left it; its token."""
    token = "0" * 31 + str(number)
    owner = {
        "token": token,
        "command": "ctc train",
        "host": "far",
        "host_id": "another boot",
        "process": 1,
        "since": "2026-01-01 00:00:00 UTC",
    }
    uri = f"{folder_uri}/_work/claim-{number:05d}.json"
    assert storage.create_bytes(uri, json.dumps(owner).encode())
    return token


def test_an_owner_on_another_machine_is_replaced_when_it_gives_no_sign_of_life(
    folder_uri, monkeypatch
):
    token = of_another_host(folder_uri, 0)
    with pytest.raises(OutputInUseError, match="on far"), claimed(folder_uri, "ctc train"):
        pass
    monkeypatch.setattr(claim, "EXPIRES_S", 0.5)
    time.sleep(2.1)  # an object store tells whole seconds
    with claimed(folder_uri, "ctc train") as mine:
        assert mine.number == 1
        assert mine.dead_tokens == (token,)
        assert mine.is_over(token)
        mine.require_owner()


def test_a_claim_is_renewed_while_its_run_lives(folder_uri, monkeypatch):
    monkeypatch.setattr(claim, "RENEW_S", 0.2)
    with claimed(folder_uri, "ctc train") as mine:
        uri = f"{folder_uri}/_work/claim-00000.json"
        first = storage.modified_at(uri)
        time.sleep(1.6)
        assert storage.modified_at(uri) > first
        mine.require_owner()


def test_an_owner_that_was_replaced_stops_before_it_writes(folder_uri):
    with claimed(folder_uri, "ctc train") as late:
        of_another_host(folder_uri, 1)
        with pytest.raises(OutputInUseError, match="has taken over"):
            late.require_owner()


def test_a_run_of_this_process_that_could_not_release_its_claim_is_over(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(claim, "_release", lambda _: None)
        with claimed(str(tmp_path), "ctc train"):
            pass
    with claimed(str(tmp_path), "ctc train") as mine:
        assert mine.number == 1


def test_only_files_of_ended_owners_are_deleted(tmp_path):
    folder = str(tmp_path)
    running = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    alive = f"{claim._host_code()}{running.pid:08x}{claim._process_start(running.pid):012x}0000"
    ended = f"{claim._host_code()}{running.pid:08x}{1:012x}0000"
    elsewhere = "f" * 32
    with open_run(folder, "bundle", {}, overwrite=False) as run:
        assert not isinstance(run, Manifest)
        for token in (alive, ended, elsewhere):
            (tmp_path / f".part-0.parquet.{token}-00000000").write_bytes(b"half")
        run.finish(Manifest(kind="bundle", config={}))
    left = {path.name.split(".")[3][:32] for path in tmp_path.glob(".part-*")}
    assert left == {alive, elsewhere}
    running.kill()
    running.wait()


def test_the_process_that_asks_is_alive_and_one_that_never_was_is_not():
    assert claim._process_start(os.getpid())
    assert claim._process_start(2**22 + 1) is None
    assert claim._has_ended(f"{claim._host_code()}{2**22 + 1:08x}{1:012x}0000")
    assert Path("/proc").exists()


def test_an_owner_whose_process_cannot_be_looked_at_is_alive(tmp_path, monkeypatch):
    job = start(str(tmp_path), seed="1", pause_s=60)
    assert job.stdout is not None
    assert job.stdout.readline() == "mine\n"
    monkeypatch.setattr(claim, "_process_start", lambda _: None)  # as /proc with hidepid
    with pytest.raises(OutputInUseError), claimed(str(tmp_path), "ctc train"):
        pass
    job.kill()
    job.wait()
    with claimed(str(tmp_path), "ctc train"):
        pass


def test_a_claim_that_was_taken_over_is_not_brought_back(folder_uri, monkeypatch):
    monkeypatch.setattr(claim, "RENEW_S", 0.1)
    uri = f"{folder_uri}/_work/claim-00000.json"
    with claimed(folder_uri, "ctc train"):
        storage.delete_file(uri)  # as the run does that has taken over, at its end
        time.sleep(0.5)
        assert not storage.exists(uri)


def test_a_claim_is_not_renewed_once_there_is_a_later_one(folder_uri, monkeypatch):
    monkeypatch.setattr(claim, "RENEW_S", 0.1)
    uri = f"{folder_uri}/_work/claim-00000.json"
    with claimed(folder_uri, "ctc train"):
        of_another_host(folder_uri, 1)
        time.sleep(0.3)  # a renewal may be on its way
        first = storage.modified_at(uri)
        time.sleep(1.6)
        assert storage.modified_at(uri) == first


@pytest.mark.parametrize("content", [b"", b'{"token": "0'], ids=["empty", "cut off"])
def test_a_claim_cut_off_by_a_loss_of_power_is_replaced_when_nothing_happens(
    folder_uri, monkeypatch, content
):
    uri = f"{folder_uri}/_work/claim-00000.json"
    storage.write_bytes(uri, content)
    with pytest.raises(OutputInUseError, match="an unknown machine"), claimed(folder_uri, "x"):
        pass
    monkeypatch.setattr(claim, "EXPIRES_S", 0.5)
    time.sleep(2.1)  # an object store tells whole seconds
    with claimed(folder_uri, "ctc train") as mine:
        mine.require_owner()
    assert not storage.exists(uri)


def test_half_written_files_of_a_dead_owner_go_even_if_the_first_run_after_it_fails(
    tmp_path, monkeypatch
):
    folder = str(tmp_path)
    token = of_another_host(folder, 0)
    half = tmp_path / "split=train" / f".part-0.parquet.{token}-00000000"
    half.parent.mkdir()
    half.write_bytes(b"half")
    monkeypatch.setattr(claim, "EXPIRES_S", -1.0)
    with pytest.raises(RuntimeError), claimed(folder, "ctc train"):
        raise RuntimeError("the run after it fails")
    assert not half.exists()


def test_after_a_run_within_a_run_files_are_the_outer_ones_again(tmp_path):
    before = storage.owner()
    with claimed(str(tmp_path / "outer"), "ctc demo") as outer:
        with claimed(str(tmp_path / "inner"), "ctc train") as inner:
            assert storage.owner() == inner.token
        assert storage.owner() == outer.token
        with pytest.raises(OutputInUseError), claimed(str(tmp_path / "outer"), "ctc train"):
            pass
        assert storage.owner() == outer.token
    assert storage.owner() == before


def test_whoever_owns_a_folder_ends_the_claims_below_it(folder_uri):
    with claimed(folder_uri, "ctc tune") as mine:
        with claimed(f"{folder_uri}/models/a", "ctc train") as late:
            of_another_host(f"{folder_uri}/models/b", 0)
            claim.end_claims_below(f"{folder_uri}/models")
            with claimed(f"{folder_uri}/models/b", "ctc train"):
                pass
            with pytest.raises(OutputInUseError):
                late.require_owner()
        mine.require_owner()
