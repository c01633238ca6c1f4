"""What PyTorch and the system raise, told as what it means."""

import errno
import os

import pytest
import torch

from lora_studio import files, runs
from lora_studio.errors import DatasetError, MachineError
from lora_studio.events import Failed
from lora_studio.training import devices, exceptions, leader
from lora_studio.training.loop import train
from tests.training.test_preflight import measured

NO_MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:85] data. DefaultCPUAllocator: not enough memory: you tried to allocate"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.90 GB, max allowed: 18.13 GB)."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    torch.AcceleratorError("CUDA error: out of memory"),
]


def ids(error):
    return f"{type(error).__name__} {str(error)[:40]}"


@pytest.fixture
def rules(new_run, settings):
    return exceptions.while_training(new_run(settings), settings.changed(batch=4))


@pytest.mark.fault(73)
@pytest.mark.parametrize("error", NO_MEMORY, ids=ids)
def test_too_little_memory_is_reported_with_what_would_fit(rules, error):
    """On a CPU it was told as a bug in the studio, with a traceback; on an Apple GPU too."""
    assert devices.memory_full(error) and not devices.lost(error)
    with pytest.raises(MachineError, match="memory of this computer is full") as raised, exceptions.translating(rules):
        raise error
    failed = Failed.of(raised.value)
    assert failed.changes and not failed.ours and failed.where == next(iter(failed.changes))


def test_what_torch_itself_raises_without_memory_is_known():
    """The messages above are those of the installed version."""
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert devices.memory_full(raised.value)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("CUDA error: unspecified launch failure"), MachineError, "stopped responding"),
        (OSError(errno.EIO, "Input/output error", "x.png"), MachineError, "The run cannot continue: Input/output"),
        (OSError(errno.ENOSPC, "No space left on device"), files.DiskFull, "the disk is full"),
        (DatasetError("No pictures."), DatasetError, "No pictures."),
        (RuntimeError("shapes do not match"), RuntimeError, "shapes do not match"),
        (ZeroDivisionError("one by none"), ZeroDivisionError, "one by none"),
    ],
    ids=ids,
)
def test_each_cause_is_told_as_its_own_and_a_bug_stays_one(rules, error, kind, words):
    with pytest.raises(kind, match=words), exceptions.translating(rules):
        raise error


@pytest.mark.fault(73)
@pytest.mark.parametrize("error", [NO_MEMORY[0], NO_MEMORY[3]], ids=ids)
def test_the_trial_answers_that_it_does_not_fit(settings, tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(leader, "train_step", full)
    assert measured(settings.changed(preview_every=0, validate_every=0), tmp_path)[1] is None
    assert runs.existing(tmp_path) == []


@pytest.mark.fault(50, 73)
def test_a_preview_that_does_not_fit_into_memory_is_a_warning(new_run, settings, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("lora_studio.training.previews.generate", full)
    quiet = settings.changed(steps=1, validate_every=0, checkpoint_every=0)
    told = [event for event in train(new_run(quiet), quiet) if "previews" in getattr(event, "what", "")]
    assert told and all("there is not enough memory." in event.what and "smaller" in event.do for event in told)
