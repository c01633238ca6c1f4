"""The scripts of docs/scripting.md as they stand there, against a studio that was started as a user starts it."""

import re
from pathlib import Path

import pytest
from gradio_client.exceptions import AppError

from lora_studio import adapters, models, runs
from lora_studio.sampling import picture_file
from lora_studio.sampling.recipe import read_recipe
from tests.ui.conftest import ROOT
from tests.ui.small_adapters import small_adapter

TEXT = (ROOT / "docs" / "scripting.md").read_text("utf-8")


@pytest.fixture
def others(studio):
    """The library has ``wash``."""
    library = runs.library_folder(studio.outputs)
    adapters.write(small_adapter(models.load("starter"), 1), library / "wash.safetensors")
    yield library
    for path in library.glob("*.safetensors"):
        path.unlink()


def test_the_documents_scripts_run_as_they_stand(studio, others, pictures):
    """What the documents promise to scripts is refused, or does something else; an error does not say what to do."""
    script = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
    here = {
        "http://127.0.0.1:7860": studio.url,
        "Client(": "Client(verbose=False, src=",
        "/home/ana/pictures": str(pictures),
        '"steps": 300': '"steps": 2, "preview_every": 0, "preview_steps": 1, "validate_every": 0',
        '"steps": 20': '"steps": 2',
        "time.sleep(2)": "time.sleep(0.2)",
    }
    for old, new in here.items():
        assert old in script
        script = script.replace(old, new)
    names = {}
    exec(script, names)
    now = names["now"]
    assert (now["state"], now["step"], now["steps"], now["problem"]) == ("finished", 2, 2, None)
    run = runs.find("ana", studio.outputs)
    assert now["adapter"] == str(run.adapter_file) and run.settings().run.trigger == "anastyle"
    assert names["begun"] == {"run": "ana", "folder": str(run.folder), "waits_for": ""}
    told = [picture_file.read(Path(path)).values for path in names["pictures"]]
    assert [(one["seed"], one["prompt"], one["width"]) for one in told] == [
        (7, "anastyle, a lighthouse", 160),
        (8, "anastyle, a lighthouse", 160),
    ]
    assert told[0]["adapters"][0]["name"] == "ana" and Path(names["softer"]) == others / "softer.safetensors"
    grid = read_recipe(Path(names["sheet"]))
    assert grid.x.labels == ["ana 0", "ana 0.5", "ana 1"] and grid.y.labels == ["seed 1", "seed 2"]
    proof = names["made"]["proof"]
    assert [(one["target"], one["passed"]) for one in proof] == [("comfyui", True), ("forge", True)]
    assert "settings" not in str(adapters.header(Path(names["made"]["file"])).metadata).casefold()
    for endpoint, given, said in (
        ("/draw", {"prompt": "a cat", "adapters": [["anna", 1]]}, "Did you mean ana"),
        ("/draw", {"prompt": "a cat", "settings": {"stepz": 2}}, "Did you mean steps"),
        ("/draw", {"prompt": "a cat", "settings": {"shape": "5:1"}}, "There is no shape '5:1'"),
        ("/train", {"settings": {"data": str(pictures), "stepz": 2}}, "Did you mean steps"),
        ("/train", {"settings": {"data": str(pictures), "rank": 0}}, "rank must be a whole number from 1 to 1,024"),
        ("/status", {"run": "anna"}, "There is no run named 'anna'"),
        ("/stop", {"run": "ana"}, "ana is neither at work nor waiting in the queue"),
    ):
        with pytest.raises(AppError, match=said):
            names["studio"].predict(api_name=endpoint, **given)
