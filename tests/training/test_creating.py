"""What can be known of why a run would fail is said before it has a folder."""

import pytest
import torch

from lora_studio import adapters
from lora_studio.adapters import Adapter, Factors
from lora_studio.cli.train import begin
from lora_studio.dataset import preparation
from lora_studio.dataset.preparation import FolderOptions, Preparation
from lora_studio.errors import AdapterError, DatasetError, MachineError, ModelError, SettingsError
from lora_studio.runs import branching
from lora_studio.runs.branching import BranchPoint
from lora_studio.training import creating, devices
from lora_studio.ui.pages.train import beginning
from tests.dataset import made
from tests.training.test_loop import collect

QUIET = {"preview_every": 0, "validate_every": 0, "checkpoint_every": 0, "steps": 1}


def refused(error, settings, outputs, origin=None):
    """What is said, the same as in the run itself; and that no folder was made."""
    with pytest.raises(error) as caught:
        creating.create(settings, outputs, origin)
    assert list(outputs.glob("[!.]*")) == ([origin.run.folder] if origin else [])
    return caught.value


@pytest.mark.parametrize(
    ("method", "key", "given", "own"), [("oft", "oft_block_size", 4, 8), ("lokr", "lokr_factor", 2, 4)]
)
def test_an_adapter_of_other_blocks_is_refused_before_the_run_has_a_folder(
    new_run, settings, tmp_path, method, key, given, own
):
    """A run of another block size or factor gets a folder, loads its base model, and only then says so."""
    parent = new_run(settings.changed(**QUIET, method=method, **{key: given}))
    collect(parent)
    other = settings.changed(**QUIET, method=method, **{key: own})
    wanted = other.changed(start_from=str(parent.adapter_file))
    said = refused(AdapterError, wanted, tmp_path / "others")
    with pytest.raises(AdapterError) as in_the_run:
        collect(branching.create(wanted, tmp_path / "begun"))
    assert (said.what, said.do) == (
        in_the_run.value.what,
        in_the_run.value.do,
    ) and "of another kind or size" in said.what
    assert refused(AdapterError, other, parent.folder.parent, BranchPoint(parent, 1)).what == said.what
    same = wanted.changed(**{key: given})
    assert creating.create(same, tmp_path / "others").start_file.is_file(), "one that fits begins"


def test_an_adapter_for_another_family_is_refused_before_the_run_has_a_folder(settings, tmp_path):
    factors = {
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q": Factors(
            torch.ones(2, 640), torch.ones(640, 2), 2.0
        )
    }
    file = adapters.write(Adapter(factors), tmp_path / "other.safetensors")
    said = refused(AdapterError, settings.changed(start_from=str(file)), tmp_path / "outputs")
    assert "0 of its 1 modules match" in said.what


def test_layers_that_the_base_model_has_not_are_refused_before_the_run_has_a_folder(settings, tmp_path):
    there = tmp_path / "outputs"
    assert "no block named up_blocks.7" in refused(SettingsError, settings.changed(blocks=["up_blocks.7"]), there).what
    text = settings.changed(by_block=["text_encoder rank=4"])
    assert "is in a text encoder, and none is trained" in refused(SettingsError, text, there).what
    assert creating.create(settings.changed(blocks=["mid_block"]), there).settings_file.is_file()


def test_more_rates_than_the_optimizer_has_are_refused_before_the_run_has_a_folder(settings, tmp_path):
    """Only once the base model is in memory."""
    one = settings.changed(optimizer="prodigy")
    assert "so LoRA+ cannot" in refused(SettingsError, one.changed(lora_plus=4), tmp_path / "outputs").what
    by_block = one.changed(by_block=["mid_block rate=2"])
    assert "so blocks cannot have others" in refused(SettingsError, by_block, tmp_path / "outputs").what
    assert creating.create(one.changed(by_block=["mid_block rate=1"]), tmp_path / "outputs").settings_file.is_file()


def test_a_device_that_is_not_here_is_refused_before_the_run_has_a_folder(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 0)
    assert "no CUDA GPU" in refused(MachineError, settings.changed(device="cuda"), tmp_path / "outputs").what
    assert (
        "2 GPUs were asked for"
        in refused(MachineError, settings.changed(device="auto", gpus=2), tmp_path / "outputs").what
    )


def test_a_branch_whose_base_model_is_gone_is_refused_before_it_has_a_folder(new_run, settings):
    parent = new_run(settings.changed(**QUIET))
    collect(parent)
    gone = settings.changed(base="/gone/model.safetensors")
    assert "no base model at" in refused(ModelError, gone, parent.folder.parent, BranchPoint(parent, 1)).what


def test_the_command_looks_at_the_base_model_before_the_run_has_a_folder(settings, tmp_path):
    (tmp_path / "none.safetensors").write_text("no model")
    for base in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelError):
            begin(settings.changed(base=str(base)), tmp_path / "outputs")
    assert not list((tmp_path / "outputs").glob("[!.]*"))


def test_noise_levels_that_have_nothing_in_common_are_refused_before_the_run_has_a_folder(settings, tmp_path):
    folder = made.style_folder(tmp_path / "style", 2)
    preparation.write(folder, Preparation(folders={"": FolderOptions(timesteps=(0, 500))}))
    settings = settings.changed(data=str(folder), timestep_from=0.5)
    for check in (begin, beginning.checked):
        with pytest.raises(DatasetError, match="outside those of the run"):
            check(settings, tmp_path / "outputs")
    assert not list((tmp_path / "outputs").glob("[!.]*"))
