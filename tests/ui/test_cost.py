"""What a run will take is told before it starts, and what a base model is as soon as it is chosen."""

import json
import re
import struct

import pytest

from lora_studio.config.settings import Settings
from lora_studio.dataset import folder as folders
from lora_studio.errors import ModelError
from lora_studio.jobs import warm
from lora_studio.jobs.warm import MemoryEstimate
from lora_studio.starter import sample_styles
from lora_studio.ui.pages.train import cost
from lora_studio.ui.pages.train.cost import MeasuredPace
from lora_studio.ui.pages.train.outlook import Outlook
from lora_studio.ui.scene import base_look


def line(outputs, measured=None, estimate=None, **settings):
    """The line as text."""
    style = next(path for path in sample_styles() if path.name == "blueprint")
    dataset = folders.scan(style, outputs / ".cache")
    made = cost.line(Settings(**settings), dataset, base_look.look("starter"), measured, outputs, estimate)
    return re.sub("<.*?>", "", made)


def test_all_is_told_in_a_line_and_what_was_not_measured_is_said_to_be_so(tmp_path):
    """An estimate of an hour that nobody measured."""
    assert line(tmp_path, steps=170, rank=32) == (
        "170 steps · each picture 5 times · time not measured yet · about 3.7 MB · "
        "trains 0.91 M of 13.2 M parameters (6.9 %) · memory not checked yet"
    )


def test_what_a_check_measured_holds_for_any_number_of_steps(tmp_path):
    told = line(tmp_path, MeasuredPace(0.5, 3 * 2**30, 8 * 2**30, True), steps=600)
    assert "about 5 minutes, without previews" in told and "3.0 GB of 8.0 GB of memory" in told
    assert cost.pace(Settings(steps=600)) == cost.pace(Settings(steps=9, trigger="x"))
    assert cost.pace(Settings(batch=2)) != cost.pace(Settings())
    assert "does not fit" in line(tmp_path, MeasuredPace(0.5, 9 * 2**30, 8 * 2**30, False))


def test_memory_that_was_not_measured_is_estimated(tmp_path):
    """An estimate looks measured; or a run that cannot fit is started without a word."""
    assert "· about 5.2 GB of memory (estimate)" in line(tmp_path, estimate=MemoryEstimate(int(5.2 * 2**30), 8 * 2**30))
    told = line(tmp_path, estimate=MemoryEstimate(11 * 2**30, 8 * 2**30))
    assert "about 11.0 GB of 8.0 GB of memory (estimate): probably does not fit" in told
    measured = MeasuredPace(0.5, 3 * 2**30, 8 * 2**30, True)
    assert "estimate" not in line(tmp_path, measured, MemoryEstimate(5 * 2**30, 8 * 2**30))


def test_an_estimate_stays_known_while_nobody_estimates(tmp_path, monkeypatch):
    """The line forgets the memory as soon as the run starts."""
    answers, outlook = [MemoryEstimate(1, 2)], Outlook(tmp_path)
    monkeypatch.setattr(warm, "estimate", lambda settings: answers.pop() if answers else None)
    assert outlook.estimate(Settings(steps=5)) == outlook.estimate(Settings(steps=9)) == MemoryEstimate(1, 2)
    assert outlook.estimate(Settings(batch=2)) is None


def test_an_earlier_run_tells_the_time(tmp_path, part):
    played = part("earlier", tmp_path, steps=100)
    played.begins(total=100)
    played.trains(1, 100)
    assert "time not measured yet" in line(tmp_path, steps=1000), "it is at work"
    played.finishes(100)
    seconds = cost._pace_of(played.run, 0)
    assert seconds > 0
    assert "as an earlier run took" in line(tmp_path, steps=1000)
    assert "time not measured yet" in line(tmp_path, steps=1000, batch=2)


@pytest.mark.parametrize("method", ["lora", "dora", "lokr", "full", "prefix-tuning", "textual-inversion"])
def test_as_many_parameters_are_counted_as_are_trained(method):
    """The page says a tenth of what the file then holds."""
    from lora_studio import models
    from lora_studio.models import inject

    settings = Settings(method=method, rank=4, targets="attention+ff", trigger="anastyle")
    base = models.load("starter")
    inject.add_adapter(base, settings.adapter, 0, "anastyle")
    assert cost.trained(settings, base_look.look("starter")) == sum(
        parameter.numel() for parameter in inject.trainable(base).values()
    )


def header(path, keys, metadata=None):
    """A file with these tensors, of zeros."""
    entries, at = {"__metadata__": metadata or {}}, 0
    for key, shape in keys.items():
        size = 2
        for side in shape:
            size *= side
        entries[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    return str(path)


def test_the_starter_is_told_in_a_line():
    assert base_look.look("starter").line == "The built-in starter · predicts velocity (v) · 128 px · 39.8 MB"


def test_what_is_no_base_model_is_told_without_loading_it(tmp_path):
    """It is found out after a process has started, a minute later."""
    lora = header(tmp_path / "ink.safetensors", {"lora_unet_x.lora_up.weight": (4, 4)})
    with pytest.raises(ModelError, match="ink.safetensors is an adapter"):
        base_look.look(lora)
    assert "There is no base model at" in base_look.refusal("/no/such/model")
    assert "is an adapter" in base_look.refusal(lora) and base_look.refusal("starter") == ""
    (tmp_path / "notes.safetensors").write_text("no model")
    assert base_look.refusal(str(tmp_path / "notes.safetensors"))
