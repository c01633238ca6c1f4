"""Training where memory is short: packed base models through the whole loop."""

import math

import pytest
import torch

from lora_studio import adapters
from lora_studio.events import Finished, PreviewReady, Started, StepDone, Validated, Warned
from lora_studio.training.loop import train


def of(kind, events_):
    return [event for event in events_ if isinstance(event, kind)]


@pytest.mark.parametrize(
    "changes",
    [
        {"quantize": "nf4", "precision": "bf16", "optimizer": "adamw8bit"},
        {"quantize": "int8", "method": "pissa", "validate_every": 4},
        {"quantize": "nf4", "method": "dora", "validate_every": 4},
    ],
    ids=str,
)
def test_a_packed_base_trains_previews_validates_and_exports(new_run, settings, changes):
    """The whole run, previews between steps; the file holds what was learned and nothing that is not a number."""
    run = new_run(settings.changed(**changes))
    seen = list(train(run, run.settings()))
    assert isinstance(seen[-1], Finished) and of(Started, seen)[0].modules == 80
    assert len(of(PreviewReady, seen)) == 3 and all(math.isfinite(event.loss) for event in of(StepDone, seen))
    assert not [event.what for event in of(Warned, seen) if "preview" in event.what]
    assert of(Validated, seen)[-1].loss != of(Validated, seen)[0].loss
    made = adapters.read(run.adapter_file)
    assert len(made.factors) == 80 and all(torch.isfinite(factors.delta()).all() for factors in made.factors.values())
    assert sum(bool(factors.up.any()) for factors in made.factors.values()) > 64, (
        "in bf16 some of so small a model's gradients round to nothing"
    )
