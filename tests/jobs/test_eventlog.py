"""The event log survives what crashes and full disks do to it."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_studio.events import State, StateChanged, StepDone, Validated
from lora_studio.jobs import eventlog
from lora_studio.jobs.eventlog import EventLog

STEP = StepDone(step=1, loss=0.5, learning_rate=1e-4)


def test_reads_what_was_appended_in_order(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    wanted = [StateChanged(state=State.RUNNING), STEP, Validated(step=1, loss=0.25)]
    for event in wanted:
        log.append(event)
    found, offset = eventlog.read(log.path)
    assert found == wanted
    assert offset == log.path.stat().st_size


def test_reads_only_what_is_new_from_an_offset(tmp_path):
    """The page's timer must not fold the whole file each time."""
    log = EventLog(tmp_path / "events.jsonl")
    log.append(STEP)
    _, offset = eventlog.read(log.path)
    log.append(STEP.model_copy(update={"step": 2}))
    found, _ = eventlog.read(log.path, offset)
    assert [event.step for event in found] == [2]


def test_a_missing_log_is_empty(tmp_path):
    assert eventlog.read(tmp_path / "none.jsonl", 0) == ([], 0)


def test_half_a_line_waits_for_its_other_half(tmp_path):
    """A reader that comes while a line is being written must neither lose it nor take a part of it."""
    path, line = tmp_path / "events.jsonl", STEP.line().encode() + b"\n"
    path.write_bytes(line + line[:20])
    found, offset = eventlog.read(path)
    assert len(found) == 1 and offset == len(line)
    path.write_bytes(line + line)
    assert len(eventlog.read(path, offset)[0]) == 1


def test_a_line_that_a_crash_tore_off_costs_only_itself(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(STEP.line().encode()[:30])
    EventLog(path).append(STEP)
    assert eventlog.read(path)[0] == [STEP]


@pytest.mark.fault(42)
def test_a_folder_in_place_of_the_log_does_not_end_training(tmp_path, capsys):
    """Fault 42: training continues if the log cannot be written, and says so once."""
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    path.mkdir()
    log.append(STEP)
    log.append(STEP)
    assert capsys.readouterr().err.count("training continues") == 1
    path.rmdir()
    log.append(STEP)
    assert eventlog.read(path)[0] == [STEP] * 3, "what could not be said then is said now"


@pytest.mark.fault(42)
def test_a_disk_that_was_full_in_the_middle_of_a_line_costs_no_event(tmp_path, monkeypatch):
    """Half a line would swallow the next event, which may be the one that tells of the full disk."""
    log = EventLog(tmp_path / "events.jsonl")
    log.append(STEP)

    class Full(io.BytesIO):
        def write(self, data):
            with real(log.path, "ab") as file:
                file.write(data[:25])
            raise OSError(28, "No space left on device")

    real = open
    monkeypatch.setattr("builtins.open", lambda path, mode="r": Full() if mode == "ab" else real(path, mode))
    log.append(STEP)
    monkeypatch.undo()
    log.append(STEP)
    assert eventlog.read(log.path)[0] == [STEP] * 3


@given(st.lists(st.binary(max_size=60).map(lambda data: data.replace(b"\n", b" ").replace(b"\r", b" ")), max_size=6))
def test_no_line_of_rubbish_is_fatal(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines) + STEP.line().encode() + b"\n")
    assert eventlog.read(path)[0][-1] == STEP
