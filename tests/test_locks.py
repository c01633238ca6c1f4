"""Locks: one has it, and death gives it back."""

import os
import subprocess
import sys

import pytest

from lora_studio.locks import Lock, held

HOLD = """
import sys, time
from pathlib import Path
from lora_studio.locks import Lock
lock = Lock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
time.sleep(60)
"""


def test_only_one_has_it_and_letting_go_gives_it_to_the_next(tmp_path):
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert one.acquire() and one.acquire() and not other.acquire()
    one.release()
    one.release()
    assert other.acquire() and not one.acquire()


def test_a_note_can_be_read_while_the_lock_is_held(tmp_path):
    lock = Lock(tmp_path / "lock")
    assert lock.acquire()
    lock.note("a long note")
    lock.note("short")
    assert (tmp_path / "lock").read_text() == "short"


@pytest.mark.fault(38, 55)
def test_a_killed_process_has_no_lock(tmp_path):
    """A lock that outlives its holder keeps everything waiting until somebody deletes a file."""
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert holder.stdout.readline() == "True\n"
    assert not Lock(path).acquire()
    holder.kill()
    holder.wait()
    with held(path):
        assert not Lock(path).acquire()
    assert Lock(path).acquire()


def test_a_lock_in_a_folder_that_is_not_there_is_an_error_and_no_refusal(tmp_path):
    with pytest.raises(FileNotFoundError):
        Lock(tmp_path / "none" / "lock").acquire()
