"""peft's folders, written by peft itself and loaded by it, as the training path and other programs do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from lora_studio.adapters import Adapter, Factors, read, write
from lora_studio.adapters import peft as dialect
from lora_studio.adapters.patterns import Patterns
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import drawn

peft = pytest.importorskip("peft")


class Net(torch.nn.Module):
    """Two layers under the names of a UNet's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = torch.nn.Conv2d(3, 6, 3, bias=False)
        self.time_embedding = torch.nn.ModuleDict({"linear_1": torch.nn.Linear(6, 5, bias=False)})


def wrapped(**config):
    """Net with a LoRA that changes something."""
    torch.manual_seed(0)
    model = peft.get_peft_model(Net(), peft.LoraConfig(target_modules=["conv_in", "linear_1"], **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = drawn(name, tuple(parameter.shape))
    return model


@pytest.mark.parametrize(
    "config",
    [
        {"r": 4, "lora_alpha": 8},
        {"r": 4, "lora_alpha": 8, "use_rslora": True},
        {"r": 4, "lora_alpha": 2, "rank_pattern": {"conv_in": 2}, "alpha_pattern": {"time_embedding.linear_1": 6}},
        {"r": 4, "lora_alpha": 2, "alpha_pattern": {r"time_(embedding|proj)\.linear_(1|2)": 6}},
    ],
)
def test_a_folder_that_peft_saved(config, tmp_path):
    """Patterns and rank-stabilized scale stand in its config alone."""
    model = wrapped(**config)
    model.save_pretrained(tmp_path)
    found = read(tmp_path).factors
    layers = {
        "unet.conv_in": model.base_model.model.conv_in,
        "unet.time_embedding.linear_1": model.base_model.model.time_embedding["linear_1"],
    }
    assert set(found) == set(layers)
    for path, layer in layers.items():
        assert found[path].scale == pytest.approx(layer.scaling["default"])
        assert torch.allclose(found[path].delta(), layer.get_delta_weight("default"), atol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_a_folder_of_ours_in_peft(dora, tmp_path):
    """Loaded by PeftModel, merged, and compared with what we say the change is."""
    from lora_studio.adapters import dora as method

    adapter = Adapter(
        {
            "unet.conv_in": Factors(
                drawn("d", (2, 3, 3, 3)), drawn("u", (6, 2, 1, 1)), 3.0, drawn("m", (6,)).abs() if dora else None
            ),
            "unet.time_embedding.linear_1": Factors(
                drawn("e", (4, 6)), drawn("v", (5, 4)), 4 * math.sqrt(4), drawn("n", (5,)).abs() if dora else None
            ),
        }
    )
    net = Net()
    before = {
        "unet.conv_in": net.conv_in.weight.detach().clone(),
        "unet.time_embedding.linear_1": net.time_embedding["linear_1"].weight.detach().clone(),
    }
    folder = write(adapter, tmp_path / "folder", "peft", raw_dora=True)
    merged = peft.PeftModel.from_pretrained(net, folder).merge_and_unload()
    after = {
        "unet.conv_in": merged.conv_in.weight,
        "unet.time_embedding.linear_1": merged.time_embedding["linear_1"].weight,
    }
    for path, factors in adapter.factors.items():
        assert torch.allclose(after[path] - before[path], method.change(factors, before[path]), atol=1e-5), path


def test_a_text_encoder_goes_without_text_model_as_in_transformers_5(tmp_path):
    """peft matches a live module's names to the letter: with ``text_model.`` it loads nothing and only warns."""
    path = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    second = path.replace("text_encoder.", "text_encoder_2.")
    factors = Factors(drawn("d", (2, 4)), drawn("u", (4, 2)), 2.0)
    assert set(dialect.encode("text_encoder", {path.partition(".")[2]: factors})[0]) == {
        f"base_model.model.encoder.layers.0.self_attn.q_proj.lora_{side}.weight" for side in "AB"
    }
    assert all(
        ".text_model." in key for key in dialect.encode("text_encoder_2", {second.partition(".")[2]: factors})[0]
    )
    assert set(read(write(Adapter({path: factors, second: factors}), tmp_path / "folder", "peft")).factors) == {
        path,
        second,
    }


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": "x"},
        {"alpha_pattern": {"(a+)+$": 1}},
        {"alpha_pattern": {"(a|a)" * 30 + "$": 1}},
        {"alpha_pattern": {r"(a*)\1\1b$": 1}},
        {"alpha_pattern": {"(?=a*a*b)": 1}},
        {"alpha_pattern": {"[": 1}},
        {"alpha_pattern": {"a{99999999999999999999}": 1}},
        {"lora_alpha": 10**400},
        {"alpha_pattern": 3},
        {"alpha_pattern": {f"to_(q|{index})": 1 for index in range(201)}},
        {"lora_alpha": [1]},
    ],
)
def test_a_hostile_config_is_an_error_and_not_a_hang(config):
    """Its patterns are regular expressions of a stranger's."""
    with pytest.raises(AdapterError, match="alpha"):
        dialect.Scales({"lora_alpha": 1, **config}).alpha("a" * 40 + "b", {"down": torch.ones(1, 1)})


class Counted(dict):
    """A table that counts how often it is gone through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()

    def values(self):
        self.times += 1
        return super().values()

    def items(self):
        self.times += 1
        return super().items()


@pytest.mark.fault(79)
def test_an_alpha_for_every_layer_is_looked_up_and_not_searched_for():
    """Matching a thousand expressions for each of a thousand layers took half a minute."""
    table = Counted({f"down_blocks.{index}.to_q": index + 1 for index in range(1000)})
    scales = dialect.Scales({"lora_alpha": 4, "alpha_pattern": table, "use_rslora": False})
    module = {"down": torch.ones(2, 2)}
    assert [scales.alpha(f"down_blocks.{index}.to_q", module) for index in (0, 1, 999)] == [1.0, 2.0, 1000.0]
    assert scales.alpha("down_blocks.1.to_k", module) == 4.0
    assert scales.alpha("text_model.down_blocks.7.to_q", module) == 8.0
    assert table.times <= 2


def test_the_first_pattern_that_matches_counts_whether_it_is_a_name_or_an_expression():
    patterns = Patterns({"attn1.to_q": 1, r"attn[12]\.to_q": 2, "to_q": 3})
    assert [patterns.get(path, 0) for path in ("a.attn1.to_q", "a.attn2.to_q", "b.to_q", "to_q", "b.not_to_q")] == [
        1,
        2,
        3,
        3,
        0,
    ]


def test_other_peft_methods_are_named():
    with pytest.raises(AdapterError, match="of the kind BOFT"):
        dialect.require_readable({"peft_type": "BOFT"}, Path("folder"))


LAYERS = {
    "unet.conv_in": lambda net: net.conv_in,
    "unet.time_embedding.linear_1": lambda net: net.time_embedding["linear_1"],
}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(lambda: peft.LoHaConfig(r=2, alpha=3), id="loha"),
        pytest.param(lambda: peft.LoHaConfig(r=2, alpha=3, use_effective_conv2d=True), id="loha tucker"),
        pytest.param(lambda: peft.LoKrConfig(r=2, alpha=3), id="lokr whole"),
        pytest.param(lambda: peft.LoKrConfig(r=1, alpha=3, decompose_both=True), id="lokr"),
        pytest.param(lambda: peft.LoHaConfig(r=2, alpha=3, alpha_pattern={"conv_(in|out)": 8}), id="pattern"),
    ],
)
def test_loha_and_lokr_folders_that_peft_saved(config, tmp_path):
    """Their scale is alpha / r by the config alone, their kernel by the layer alone."""
    torch.manual_seed(0)
    made = config()
    made.target_modules = {"conv_in", "linear_1"}
    model = peft.get_peft_model(Net(), made)
    for name, parameter in model.named_parameters():
        if ".hada_" in name or ".lokr_" in name:
            parameter.data = drawn(name, tuple(parameter.shape))
    model.save_pretrained(tmp_path)
    found = read(tmp_path).factors
    assert set(found) == set(LAYERS)
    for path, layer in LAYERS.items():
        there = layer(model.base_model.model).get_delta_weight("default")
        assert torch.allclose(found[path].delta(), there, atol=1e-4), path


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_a_folder_whose_training_changed_the_base_model(start, tmp_path):
    """Its factors alone gave twice the change. What peft itself makes of it is read, to the entry."""
    torch.manual_seed(0)
    net = Net()
    before = net.time_embedding["linear_1"].weight.detach().clone()
    model = peft.get_peft_model(
        net, peft.LoraConfig(r=2, lora_alpha=3, init_lora_weights=start, target_modules=["linear_1"])
    )
    model.peft_config["default"].init_lora_weights = True  # as peft asks for before the first save
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = start
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.1 * drawn(name, tuple(parameter.shape))
    model.save_pretrained(tmp_path / "raw")
    with pytest.raises(AdapterError, match=f"began from {start}, which changed the base model by"):
        read(tmp_path / "raw")
    model.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    change = read(tmp_path / "plain").factors["unet.time_embedding.linear_1"].delta()
    after = model.merge_and_unload().time_embedding["linear_1"].weight
    assert torch.allclose(change, after - before, atol=1e-5)


@pytest.mark.parametrize("start", ["loftq", "corda", "lora_ga"])
def test_other_starts_that_change_the_base_model_are_refused_by_name(start):
    with pytest.raises(AdapterError, match=start):
        dialect.require_readable({"init_lora_weights": start}, Path("folder"))
    for harmless in (True, False, "gaussian", "eva", "orthogonal"):
        dialect.require_readable({"init_lora_weights": harmless}, Path("folder"))


@pytest.mark.parametrize("kind", ["OFTConfig", "IA3Config", "VeraConfig"])
def test_folders_of_other_methods_are_refused_by_name(kind, tmp_path):
    config = getattr(peft, kind)(target_modules=["linear_1"])
    if kind == "OFTConfig":
        config.oft_block_size, config.r = 3, 0
    if kind == "IA3Config":
        config.feedforward_modules = []
    peft.get_peft_model(Net(), config).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match=f"of the kind {config.peft_type.value}"):
        read(tmp_path)
