"""Which process a model was trained with, from its scheduler's configuration or from a name."""

import subprocess
import sys

import pytest

from lora_studio.diffusion import registry
from lora_studio.diffusion.edm import ContinuousVelocity
from lora_studio.diffusion.flow import RectifiedFlow
from lora_studio.diffusion.gaussian import Epsilon, Velocity
from lora_studio.errors import SettingsError


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        ({}, Epsilon),
        ({"prediction_type": "epsilon"}, Epsilon),
        ({"prediction_type": "v_prediction"}, Velocity),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, RectifiedFlow),
        ({"prediction_type": "flow_prediction", "use_flow_sigmas": True}, RectifiedFlow),
        (
            {"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction", "sigma_data": 1.0},
            ContinuousVelocity,
        ),
    ],
)
def test_the_configuration_tells_the_process(schedule, kind):
    assert type(registry.process_of(schedule)) is kind
    assert type(registry.process_of(schedule, "v")) is Velocity, "a setting overrules it"
    assert sum(one.owns(schedule) for one in registry.PROCESSES) == 1, "no process takes another's models"


def test_names():
    assert [registry.named(name) for name in ("epsilon", "eps", "v", "v_prediction", "flow")] == [
        *[Epsilon] * 2,
        *[Velocity] * 2,
        RectifiedFlow,
    ]
    assert registry.known("velocity") and not registry.known("sample")
    with pytest.raises(SettingsError, match="'sample'"):
        registry.process_of({"prediction_type": "sample"})


def test_no_two_processes_share_a_name():
    names = [name for process in registry.PROCESSES for name in (process.name, *process.aliases)]
    assert len(names) == len(set(names))


def test_names_need_no_torch():
    code = """
import sys
from lora_studio.diffusion import registry, samplers
assert registry.NAMES == ("epsilon", "v", "flow", "edm") and samplers.NAMES and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
