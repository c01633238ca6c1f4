"""The memory's arithmetic, held against what autograd really keeps and what models really hold."""

import time
from dataclasses import replace

import pytest
import torch

from lora_studio import models
from lora_studio.models import inject, quantize, recompute, shapes, single
from lora_studio.models.parts import read_json
from lora_studio.models.shapes import Shapes
from lora_studio.settings import Settings
from lora_studio.training import memory, optimizers
from tests.models import tiny
from tests.training.saved import saved


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return lambda family: tiny.folder(tmp_path_factory.mktemp("tiny") / family, family)


def narrow(family: str) -> Shapes:
    """The family's topology in a quarter of its widths, SDXL's deep levels with two transformer blocks instead of ten."""
    unet = read_json(single.CONFIGS / family / "unet.json")
    unet["block_out_channels"] = [width // 4 for width in unet["block_out_channels"]]
    unet["norm_num_groups"] = 16
    if isinstance(unet["attention_head_dim"], list):
        unet["attention_head_dim"] = [heads // 2 for heads in unet["attention_head_dim"]]
    if family == "sdxl":
        unet["transformer_layers_per_block"] = [1, 1, 2]
    return Shapes(family, 8 * unet["sample_size"], unet, read_json(single.CONFIGS / family / "vae.json"), {"unet": 0, "vae": 0})


TWELVE = [
    ("sd1", "bf16", {}),
    ("sd1", "fp32", {"batch": 2, "resolution": 256}),
    ("sd1", "bf16", {"targets": "attention+ff+conv", "rank": 64}),
    ("sd1", "fp32", {"targets": "attention+ff+conv", "checkpointing": "largest"}),
    ("sd1", "bf16", {"targets": "qv", "checkpointing": "all", "resolution": 768}),
    ("sd1", "fp32", {"method": "dora", "rank": 8}),
    ("sd1", "bf16", {"dropout": 0.1}),
    ("sd2", "fp16", {"targets": "attention+ff"}),
    ("sd2", "fp32", {"batch": 4, "resolution": 256, "dropout": 0.1, "targets": "attention+ff"}),
    ("sdxl", "bf16", {}),
    ("sdxl", "bf16", {"checkpointing": "all", "batch": 2, "resolution": 768}),
    ("sdxl", "bf16", {"method": "dora", "targets": "attention+ff", "resolution": 512}),
]


@pytest.mark.parametrize(("family", "precision", "changes"), TWELVE, ids=str)
def test_activations_are_what_autograd_saves_to_ten_percent(family, precision, changes):
    """Twelve settings; the exact shapes are in tests/benchmarks/memory.py."""
    settings, shape = Settings(**changes), narrow(family)
    measured, unet = saved(settings, shape, precision)
    reckoned = memory.unet_of(settings, shape, memory._BYTES[precision])
    assert reckoned.saved() == pytest.approx(measured, rel=0.1)
    assert reckoned.adapter == sum(parameter.numel() for parameter in unet.parameters() if parameter.requires_grad), "trained parameters are counted exactly"
    assert reckoned.kept() >= reckoned.saved()


@pytest.mark.parametrize("changes", [{}, {"checkpointing": "all"}, {"quantize": "nf4"}, {"train_text": True, "targets": "attention+ff"}, {"train_text": True, "checkpointing": "all"}], ids=str)
def test_a_real_step_on_the_cpu_saves_what_is_reckoned(tiny_folder, changes):
    """Nothing imitated: the loop's own prediction in float32. A quantised layer keeps no more than a plain one."""
    folder = str(tiny_folder("sd1"))
    settings = Settings(rank=4, alpha=4, resolution=256, **changes)
    base = models.load(folder, quantize=settings.quantize)
    inject.add_adapter(base, settings, seed=0)
    for model in base.models.values():
        model.train()
    recompute.enable(base.unet, settings.checkpointing, base.text_encoders.values())
    own, held, kept = {parameter.untyped_storage()._cdata for model in base.models.values() for parameter in model.parameters()}, {}, []

    def hold(tensor):
        key = tensor.untyped_storage()._cdata
        if key not in own and key not in held:
            held[key] = tensor.untyped_storage().nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        text = base.features(["a cat"]) if settings.train_text else base.encode_text(["a cat"])
        base.predict(torch.randn(1, 4, 32, 32), torch.tensor([500]), text)
    reckoned = memory.unet_of(settings, shapes.read(folder), 4)
    assert reckoned.saved() == pytest.approx(sum(held.values()), rel=0.1)
    assert reckoned.adapter == sum(parameter.numel() for parameter in inject.trainable(base).values())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_shapes_are_the_models_own_in_either_layout(tiny_folder, tmp_path, family):
    """Counted from headers, without a weight; a whole SD 2 says only when asked what it was trained at."""
    folder = tiny_folder(family)
    base, found = models.load(str(folder)), shapes.read(str(folder))
    assert (found.family, found.resolution, found.scale) == (base.family.name, base.resolution, base.scale)
    parts = {"unet": base.unet, "vae": base.vae, **base.text_encoders}
    assert [encoder.layers for encoder in found.text] == [encoder.config.num_hidden_layers for encoder in base.text_encoders.values()]
    assert found.parameters == {part: sum(parameter.numel() for parameter in model.parameters()) for part, model in parts.items()}
    file = shapes.read(str(tiny.checkpoint(tmp_path / "one.safetensors", family)))
    assert file.family == found.family and file.text == found.text and file.parameters["unet"] == found.parameters["unet"]
    assert {key: file.unet[key] for key in ("block_out_channels", "cross_attention_dim")} == {key: found.unet[key] for key in ("block_out_channels", "cross_attention_dim")}
    reckoned = memory.unet_of(Settings(), found, 4)
    assert reckoned.packable == sum(base.unet.get_submodule(name).weight.numel() for name in quantize.packed(base.unet))


def test_the_estimate_of_a_large_model_takes_no_time_and_adds_up():
    """Under a second is asked; it takes milliseconds, since nothing is built."""
    shape = replace(narrow("sdxl"), unet=read_json(single.CONFIGS / "sdxl" / "unet.json"), parameters={"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840})
    began = time.perf_counter()
    found = memory.estimate(Settings(), shape, "bf16")
    assert time.perf_counter() - began < 0.2
    assert found.weights == 2 * 2_567_463_684 and found.gradients == found.adapter == 4 * 23_224_320
    assert found.step == found.weights + found.adapter + found.gradients + found.optimizer + found.activations + found.working <= found.peak
    packed = memory.estimate(Settings(quantize="nf4"), shape, "bf16")
    assert 0.25 * found.weights < packed.weights < 0.4 * found.weights


@pytest.mark.parametrize("name", ["adamw", "lion", "schedulefree", "prodigy"])
def test_the_optimizers_state_is_as_large_as_reckoned(name):
    """To a tenth, over a hundred thousand parameters."""
    parameters = {"x.lora_A.weight": torch.nn.Parameter(torch.randn(1000, 100))}
    settings = Settings(optimizer=name)
    optimizer, flat, _ = optimizers.build(parameters.items(), settings)
    optimizers.mode(optimizer, training=True)
    flat.gradients.fill_(1.0)
    optimizer.step()
    held = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor))
    assert held == pytest.approx(100_000 * memory._STATES[name], rel=0.1)


def test_the_ways_to_a_smaller_card_are_single_changes_or_all_that_are_needed_together():
    shape = replace(narrow("sdxl"), unet=read_json(single.CONFIGS / "sdxl" / "unet.json"), parameters={"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840})
    settings = Settings(batch=2, accumulate=3)
    gigabytes = 2**30
    easy = memory.ways(settings, shape, "bf16", 16 * gigabytes)
    assert {"batch": 1, "accumulate": 6} in [way.changes for way in easy] and all(way.peak <= 16 * gigabytes for way in easy)
    (hard,) = memory.ways(settings, shape, "bf16", 6 * gigabytes)
    assert hard.changes["checkpointing"] == "all" and hard.changes["quantize"] == "nf4" and hard.peak <= 6 * gigabytes
    assert memory.ways(settings, shape, "bf16", gigabytes / 4) == []
