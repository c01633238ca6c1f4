"""docs/families.md says that a family is added in one file and one line: here one is, and a whole run goes through."""

import json
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from lora_studio import adapters, models
from lora_studio.events import Finished, PreviewReady
from lora_studio.families import registry
from lora_studio.families.family import Family
from lora_studio.models import inject
from lora_studio.training.loop import train
from tests.models import tiny


class TwoLevels(Family):
    """A family with two levels that is told the mean of the text as well, the example of docs/families.md."""

    name, title, configs = "two", "Two Levels", "two"
    prefixes = {}

    def owns_folder(self, unet):
        return len(unet["block_out_channels"]) == 2

    def owns_file(self, shapes):
        return False

    def encode_text(self, encoders, tokens, captions):
        hidden = encoders["text_encoder"](tokens[0]).last_hidden_state
        return {"hidden": hidden, "mean": hidden.mean(dim=1, keepdim=True)}

    def conditions(self, text, sizes):
        return {"encoder_hidden_states": torch.cat([text["hidden"], text["mean"]], dim=1)}


def a_model(path: Path) -> Path:
    """A diffusers folder of it: a tiny SD 1 with another UNet."""
    made = tiny.folder(path, "sd1")
    config = tiny.config("sd1", "unet") | {
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }
    torch.manual_seed(0)
    UNet2DConditionModel.from_config(config).save_pretrained(made / "unet")
    index = json.loads((made / "model_index.json").read_text())
    (made / "model_index.json").write_text(json.dumps(index | {"_class_name": "TwoLevelsPipeline"}))
    return made


def test_a_family_of_one_class_trains_previews_and_exports(tmp_path, new_run, settings, monkeypatch):
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, TwoLevels()))
    base = a_model(tmp_path / "two")
    run = new_run(settings.changed(base=str(base), steps=2, preview_every=0, validate_every=0))
    seen = list(train(run, run.settings()))
    assert isinstance(seen[-1], Finished) and [
        event for event in seen if isinstance(event, PreviewReady) and not event.base
    ]
    made = adapters.read(run.adapter_file)
    loaded = models.load(str(base))
    assert loaded.family.name == "two" and any(factors.up.any() for factors in made.factors.values())
    inject.load_adapters(loaded, [(made, 1.0)])
    answer = loaded.predict(torch.randn(1, 4, 8, 8), torch.tensor([500]), loaded.encode_text(["a disc"]))
    inject.set_weights(loaded, [0.0])
    assert answer.shape == (1, 4, 8, 8) and answer.isfinite().all()
