"""A rectified flow that descends from SDXL: nothing in its file says so, so it is set by hand."""

import pytest
import torch

from lora_studio import adapters
from lora_studio.errors import SettingsError
from lora_studio.events import BaseLoaded, Finished, PreviewReady, StepDone, Warned
from lora_studio.models import Base
from lora_studio.training.loop import train
from tests.models import tiny


@pytest.fixture
def flowing(tmp_path, settings):
    path = tiny.checkpoint(tmp_path / "flow.safetensors", "sdxl", metadata={"format": "pt"})
    return settings.changed(
        base=str(path), prediction="flow", flow_shift=2.5, steps=1, validate_every=0, preview_every=0, targets="qv"
    )


def test_it_trains_draws_and_says_so_in_the_header(flowing, new_run, monkeypatch):
    asked, predict = [], Base.predict

    def noted(self, noisy, timesteps, *others):
        asked.append(timesteps.flatten())
        return predict(self, noisy, timesteps, *others)

    monkeypatch.setattr(Base, "predict", noted)
    run = new_run(flowing)
    seen = list(train(run, run.settings()))
    assert isinstance(seen[-1], Finished) and not [
        one for one in seen if isinstance(one, Warned) and one.where != "bucket_step" and "disc" not in one.where
    ]
    assert [event.finding for event in seen if isinstance(event, BaseLoaded)] == ["Rectified flow – set by hand"]
    assert [event.loss > 0 for event in seen if isinstance(event, StepDone)] == [True]
    assert len([event for event in seen if isinstance(event, PreviewReady)]) == 2, "without the adapter and with it"
    when = torch.cat(asked)
    assert when.dtype == torch.float32 and 990 < when.max() <= 1000, "the UNet is given 1000 s"
    header = adapters.header(run.adapter_file).metadata
    assert header["modelspec.prediction_type"] == "flow" and header["ss_v_parameterization"] == "False"


def test_a_sampler_that_cannot_draw_it_ends_the_run_before_it_trains(flowing, new_run):
    """Only then is it known, where the noise is not set by hand."""
    other = flowing.previews.model_copy(update={"sampler": "euler_a"})
    with pytest.raises(SettingsError, match="another noise process.*'euler_a'"):
        list(train(new_run(flowing), flowing.model_copy(update={"previews": other})))
