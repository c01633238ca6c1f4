"""Checkpoints in eight bits, plain and scaled: the weights that come out are those that went in."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_studio import models
from lora_studio.adapters import container, merge, scales
from lora_studio.errors import ModelError
from lora_studio.models.weights import Weights

KEY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
CONV = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
STEM = KEY.removesuffix(".weight")
Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def _saved(tmp_path, tensors, metadata=None):
    save_file(tensors, tmp_path / "eight.safetensors", metadata)
    return tmp_path / "eight.safetensors"


def _read(path, key="x.weight"):
    with Weights([path]) as weights:
        return weights.read(key)


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_two_times_a_half_is_one(name, shape, dtype, tmp_path):
    weight = torch.full((2, 3), 2.0).to(dtype)
    path = _saved(tmp_path, {"x.weight": weight, f"x.{name}": torch.full(shape, 0.5), "scaled_fp8": torch.zeros(0)})
    assert torch.equal(_read(path), torch.ones(2, 3))


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1, 1)])
def test_a_scale_for_each_row(shape, tmp_path):
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[..., None, None].to(torch.float8_e4m3fn)
    path = _saved(tmp_path, {"x.weight": weight, "x.weight_scale": torch.tensor([0.5, 10.0]).reshape(shape)})
    assert _read(path).flatten(1).tolist() == [[0.5, 1.0, 1.5], [40.0, 50.0, 60.0]]


def test_the_product_is_rounded_once(tmp_path):
    """1.75 × 0.3 in float32 is 0.525; in bf16 the scale alone would be off by 0.1 %."""
    weight, scale = torch.full((1, 1), 1.75).to(torch.float8_e4m3fn), torch.tensor(0.3)
    path = _saved(tmp_path, {"x.weight": weight, "x.scale_weight": scale})
    assert _read(path).dtype == torch.float32 and _read(path).item() == (torch.tensor(1.75) * scale).item()


def test_scales_of_activations_are_not_of_weights(tmp_path):
    weight = torch.full((2, 2), 2.0).to(torch.float8_e4m3fn)
    more = {"x.scale_input": torch.tensor(9.0), "x.input_scale": torch.tensor(9.0)}
    path = _saved(tmp_path, {"x.weight": weight, "x.weight_scale": torch.tensor(0.5), **more})
    assert torch.equal(_read(path), torch.ones(2, 2)) and set(Weights([path]).shapes) == {"x.weight"}


_EIGHT = torch.zeros(256, 256).to(torch.float8_e4m3fn)
_JSON = torch.tensor(list(b'{"format": "mxfp8"}'), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"x.weight": _EIGHT, "x.weight_scale": torch.ones(2, 2)}, {}, r"scales of shape \(2, 2\) .* \(256, 256\)"),
        ({"x.weight": _EIGHT, "x.weight_scale": torch.ones(1, 256)}, {}, r"scales of shape \(1, 256\)"),
        ({"x.weight": _EIGHT, "x.weight_scale_inv": torch.ones(2, 2)}, {}, "block-wise float8"),
        ({"x.weight": _EIGHT, "x.weight_scale": torch.ones(()), "x.weight_scale_2": torch.ones(())}, {}, "NVFP4"),
        ({"x.weight": _EIGHT.view(torch.uint8), "x.weight.absmax": torch.ones(9)}, {}, "bitsandbytes' four bits"),
        ({"x.weight": _EIGHT.view(torch.int8), "x.weight_scale": torch.ones(())}, {}, "I8 with scales"),
        ({"x.weight": _EIGHT, "x.comfy_quant": _JSON}, {}, "mxfp8"),
        ({"x.weight": _EIGHT}, {"_quantization_metadata": '{"layers": {"x": {"format": "nvfp4"}}}'}, "nvfp4"),
        ({"x.weight": _EIGHT}, {"_quantization_metadata": "[1"}, "does not name"),
        ({"y.weight": _EIGHT, "x.scale_weight": torch.ones(())}, {}, "not the weight that it scales"),
    ],
)
def test_other_layouts_are_refused_by_name(tensors, metadata, message, tmp_path):
    with pytest.raises(ModelError, match=message) as raised:
        Weights([_saved(tmp_path, tensors, metadata)])
    assert raised.value.do


def test_formats_that_are_read_are_let_through(tmp_path):
    named = {"layers": {"x": {"format": "float8_e4m3fn"}}}
    mark = torch.tensor(list(json.dumps({"format": "float8_e5m2"}).encode()), dtype=torch.uint8)
    weight = torch.full((2, 2), 2.0).to(torch.float8_e5m2)
    tensors = {"x.weight": weight, "x.weight_scale": torch.tensor(0.5), "x.comfy_quant": mark}
    assert _read(_saved(tmp_path, tensors, {"_quantization_metadata": json.dumps(named)})).unique().tolist() == [1.0]


# Whole models


def _scaled(tensors, keys):
    """``tensors`` with the weights ``keys`` as float8, a scale for each row."""
    made = dict(tensors)
    for key in keys:
        peak = tensors[key].flatten(1).abs().amax(1).clamp(min=1e-6)
        rows = peak.reshape(-1, *[1] * (tensors[key].ndim - 1)) / 448
        made[key] = (tensors[key] / rows).to(torch.float8_e4m3fn)
        made[f"{key.rpartition('.')[0]}.scale_weight"] = (peak / 448).reshape(-1, 1)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scaled_checkpoint_loads_as_the_product(dtype, tmp_path, tiny_file):
    tensors = _scaled(load_file(tiny_file("sd1")), [KEY, CONV])
    path = _saved(tmp_path, tensors | {"model.diffusion_model.scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn)})
    unet = models.load(str(path), dtype=dtype).unet
    expected = (tensors[KEY].float() * tensors[f"{STEM}.scale_weight"]).to(dtype)
    assert torch.equal(unet.get_submodule(Q).weight, expected)
    scale = tensors[f"{CONV.removesuffix('.weight')}.scale_weight"]
    expected = (tensors[CONV].float() * scale[..., None, None]).to(dtype)
    assert torch.equal(unet.down_blocks[0].resnets[0].conv1.weight, expected)


def test_a_scaled_checkpoint_is_packed_after_it_is_multiplied(tmp_path, tiny_file):
    """As packing the same numbers from a file in full precision."""
    tensors = _scaled(load_file(tiny_file("sd1")), [KEY])
    full = tensors[KEY].float() * tensors[f"{STEM}.scale_weight"]
    packed = [
        models.load(str(path), quantize="nf4").unet.get_submodule(Q)
        for path in (_saved(tmp_path, tensors), _full(tmp_path, tensors, full))
    ]
    assert torch.equal(packed[0].weight, packed[1].weight)


def _full(tmp_path, tensors, weight):
    kept = {key: tensor for key, tensor in tensors.items() if not key.endswith(".scale_weight")}
    save_file(kept | {KEY: weight}, tmp_path / "full.safetensors")
    return tmp_path / "full.safetensors"


def test_a_plain_checkpoint_in_eight_bits(tmp_path, tiny_file):
    tensors = load_file(tiny_file("sd1")).items()
    eight = {key: tensor.to(torch.float8_e5m2) for key, tensor in tensors if tensor.is_floating_point()}
    base = models.load(str(_saved(tmp_path, eight)), dtype=torch.bfloat16)
    assert torch.equal(base.unet.get_submodule(Q).weight, eight[KEY].to(torch.bfloat16))


def test_a_folder_in_scaled_eight_bits(tmp_path, tiny_folder):
    import shutil

    path = shutil.copytree(tiny_folder("sd1"), tmp_path / "copy")
    file = path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = _scaled(load_file(file), [f"{Q}.weight"])
    save_file(tensors, file)
    expected = tensors[f"{Q}.weight"].float() * tensors[f"{Q}.scale_weight"]
    assert torch.equal(models.load(str(path)).unet.get_submodule(Q).weight, expected)


def test_weights_in_whole_numbers_are_refused(tmp_path, tiny_file):
    tensors = load_file(tiny_file("sd1"))
    with pytest.raises(ModelError, match=r"attn1\.to_q\.weight is in the format int8"):
        models.load(str(_saved(tmp_path, tensors | {KEY: tensors[KEY].to(torch.int8)})))


# Commands that read a base model's weights one by one


def test_a_merge_reads_products_and_never_adds_to_factors(tmp_path, tiny_file):
    tensors = _scaled(load_file(tiny_file("sd1")), [KEY])
    path = _saved(tmp_path, tensors)
    read = merge.weight_reader(path, "sd1")(f"unet.{Q}")
    assert torch.equal(read, tensors[KEY].float() * tensors[f"{STEM}.scale_weight"])
    with pytest.raises(ModelError, match=r"scaled float8 weights \(1\)"):
        scales.require_plain(container.read_header(path), path)
    with pytest.raises(ModelError, match="scaled float8"):
        next(iter(merge.merge(path, tmp_path / "out.safetensors", [])))
