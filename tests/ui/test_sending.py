"""The panel that sends an adapter to another program, without a browser."""

import gradio as gr
import pytest

from lora_studio import adapters, runs
from lora_studio.ui.pages.library import cards
from lora_studio.ui.sending import SendPanel
from tests.adapters.adapter_samples import small


@pytest.fixture
def panel(tmp_path) -> SendPanel:
    with gr.Blocks():
        return SendPanel(tmp_path / "outputs")


def test_a_wrong_folder_is_told_before_anything_is_written(panel, tmp_path, monkeypatch):
    """The artist waits for a file to be written and proved, and learns then that the folder's name has a typo."""
    monkeypatch.setattr("lora_studio.jobs.command.run", lambda *_: pytest.fail("it was written"))
    last = list(panel.send("ink/ink.safetensors", "", "comfyui", str(tmp_path / "ComfyIU"), "ink"))[-1]
    assert "ComfyUI: <b>There is no folder" in last[panel.outcome]["value"]
    last = list(panel.send("ink/ink.safetensors", "", "comfyui", "", "ink"))[-1]
    assert "The studio does not know the folder of ComfyUI yet." in last[panel.outcome]["value"]


def test_an_adapter_of_the_starter_is_offered_with_a_warning(panel):
    """The artist takes it to a program that cannot draw with it."""
    adapters.write(small(), runs.library_folder(panel.outputs) / "rain.safetensors")
    entry = cards.find("library/rain.safetensors", panel.outputs)
    opened = panel.open(gr.EventData(None, {"key": "library/rain.safetensors", "to": "", "file": ""}))
    assert "Made for the built-in starter" in opened[panel.title] and "Made for" in cards.made_for(entry)
    assert cards.made_for(entry.model_copy(update={"family": "sdxl"})) == ""
