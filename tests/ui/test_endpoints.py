"""What scripts may hand over: whatever it is, the answer is a picture or a sentence."""

import gradio as gr
import pytest

from lora_studio import adapters, runs
from lora_studio.ui import endpoints
from tests.adapters.adapter_samples import small

NAN = float("nan")


class NoEasel:
    """Nothing of all this is drawn."""


@pytest.fixture
def call(tmp_path):
    """Calls an endpoint by its name, as Gradio does, with what a script gave."""
    adapters.write(small(), runs.library_folder(tmp_path) / "ink.safetensors")
    with gr.Blocks() as blocks:
        endpoints.expose(tmp_path, NoEasel())
    functions = {one.api_name: one.fn for one in blocks.fns.values()}
    return lambda endpoint, given: functions[endpoint](**given)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("draw", {"prompt": None}, "prompt cannot be None"),
        ("draw", {"prompt": "cat", "adapters": None}, "adapters cannot be None"),
        ("draw", {"prompt": "cat", "adapters": "ink"}, "adapters cannot be 'ink'"),
        ("draw", {"prompt": "cat", "settings": [1]}, r"settings cannot be \[1\]"),
        ("draw", {"prompt": "cat", "count": 1.5}, "count cannot be 1.5"),
        ("draw", {"prompt": "cat", "seed": NAN}, "seed cannot be nan"),
        ("draw", {"prompt": "cat", "adapters": [["ink", 10**400]]}, "is no adapter"),
        ("draw", {"prompt": "cat", "adapters": [["ink", NAN]]}, "is no adapter"),
        ("draw", {"prompt": "cat", "settings": {"width": NAN, "height": 64}}, "Width must be a whole number"),
        ("draw", {"prompt": "cat", "settings": {"width": float("inf"), "height": 64}}, "Width must be a whole number"),
        ("mix", {"adapters": [["ink", 1]], "name": None}, "name cannot be None"),
        ("mix", {"adapters": [["ink", 1]], "method": 5}, "method cannot be 5"),
        ("mix", {"adapters": [["ink", 1]], "settings": "x"}, "settings cannot be 'x'"),
        ("sheet", {"prompt": "cat", "columns": "seed"}, "columns cannot be 'seed'"),
        ("train", {"settings": None}, "settings cannot be None"),
        ("train", {"settings": {}}, "There is no folder of pictures"),
        ("train", {"settings": {"data": "no/such"}}, "no/such"),
        ("train", {"settings": {"data": "x", "under": 1}}, "under"),
        ("train", {"settings": {"learning_rate": NAN}}, "learning_rate must be a number"),
        ("train", {"settings": {"steps": 2.5}}, "steps must be a whole number"),
        ("train", {"settings": {}, "preset": "nope"}, "There is no preset named 'nope'"),
        ("train", {"settings": {}, "start_from": "ink@5"}, "There is no run named 'ink'"),
        ("status", {"run": 5}, "run cannot be 5"),
        ("status", {}, "There is no run"),
        ("stop", {"run": ""}, "There is no run named ''"),
        ("export", {"adapter": "nope"}, "The library has no adapter named nope"),
        ("export", {"adapter": "ink", "format": "koh"}, "There is no format 'koh'. There are kohya, diffusers, peft"),
        ("export", {"adapter": "ink", "settings": {"o": "/etc/x"}}, "There is no setting 'o'"),
        (
            "export",
            {"adapter": "ink", "settings": {"rank": "many"}},
            "rank must be a whole number from 0 to 4,096; it is 'many'",
        ),
        ("export", {"adapter": "ink", "settings": {"programs": ["paint"]}}, r"programs cannot be \['paint'\]"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(call, name, given, told):
    """A script read what Python says of its own types: 'NoneType' object is not iterable."""
    with pytest.raises(gr.Error, match=told):
        call(name, given)
