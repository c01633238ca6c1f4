"""Every method's run can be interrupted: a fresh session with a saved state goes on as the first one did, bit for bit
on the CPU.
"""

import copy

import pytest
import torch

from lora_studio.methods.registry import METHODS
from lora_studio.models import inject
from lora_studio.training import devices, prepare
from lora_studio.training.distributed import World
from lora_studio.training.train_step import train_step


def told(generator):
    """What a generator of events returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


@pytest.fixture
def session(new_run, settings):
    """Makes sessions of one run, all on one base model."""
    settings = settings.changed(batch=1)
    run, world, machine = new_run(settings), World(), devices.choose(settings.machine)
    dataset = told(prepare.look(run, settings, world))
    base = told(prepare.load(settings, machine, dataset))

    def make(method):
        inject.remove(base)
        chosen = settings.changed(method=method, **METHODS[method].usual)
        return told(prepare.assemble(run, chosen, machine, world, dataset, base))

    return make


def stepped(session):
    """One step, and a copy of the state after it."""
    train_step(session)
    session.step += 1
    return copy.deepcopy({key: value for key, value in session.state().items() if key != "started"})


def test_a_saved_state_goes_on_as_the_run_would_have(session):
    for method in METHODS:
        first = session(method)
        saved, started = stepped(first), first.started
        expected = stepped(first)["parameters"]
        again = session(method)
        again.restore({**saved, "started": started})
        found = stepped(again)["parameters"]
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
        assert any(not torch.equal(found[name], saved["parameters"][name]) for name in found), f"{method} learns"
