"""Folding into a base model: the right tensor, the right third of it, streamed, and back again."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_studio.adapters import Adapter, dora, merge
from lora_studio.errors import AdapterError, ModelError
from tests.adapters.adapter_samples import BLOCK, drawn, factors

LAYER = "text_encoder_2.text_model.encoder.layers.0."
ADAPTER = Adapter(
    {
        f"{BLOCK}.attn1.to_q": factors("q", 8, 8, rank=2, alpha=1.0),
        "unet.up_blocks.0.upsamplers.0.conv": factors("c", 8, 8, rank=2, kernel=3),
        "unet.mid_block.attentions.0.proj_in": factors("p", 8, 8, rank=2, kernel=1),
        "text_encoder.text_model.encoder.layers.0.mlp.fc1": factors("f", 12, 6, rank=2),
    },
    {"modelspec.title": "Ink"},
)
SECOND = Adapter(
    {f"{LAYER}self_attn.{name}_proj": factors(name, 6, 6, rank=2) for name in "qv"}
    | {f"{LAYER}mlp.fc2": factors("g", 6, 12, rank=2), "text_encoder_2.text_projection": factors("t", 5, 6, rank=2)}
)
SECOND.__dict__["family"] = "sdxl"


def folder(tmp_path, dtype=torch.float32):
    """A diffusers folder, its text encoder saved as transformers 5 does, without ``text_model.``."""
    base = tmp_path / "base"
    unet = {
        path.removeprefix("unet.") + ".weight": drawn(path, one.shape, dtype)
        for path, one in ADAPTER.factors.items()
        if path.startswith("unet.")
    }
    tensors = {
        "unet": unet | {"conv_in.bias": torch.ones(3, dtype=dtype)},
        "text_encoder": {"encoder.layers.0.mlp.fc1.weight": drawn("fc1", (12, 6), dtype)},
        "vae": {"x": torch.ones(2)},
    }
    for component, weights in tensors.items():
        (base / component).mkdir(parents=True)
        save_file(weights, base / component / "model.safetensors", {"format": "pt"})
        (base / component / "config.json").write_text("{}")
        (base / component / "model.bin").write_bytes(b"pickle")
    (base / "model_index.json").write_text("{}")
    return base


def finish(progress) -> list:
    return list(progress)


def test_folder(tmp_path):
    base = folder(tmp_path)
    steps = finish(merge.merge(base, tmp_path / "out", [(ADAPTER, 0.5)]))
    assert steps[-1].done == steps[-1].total == 5
    before, after = (load_file(root / "unet" / "model.safetensors") for root in (base, tmp_path / "out"))
    for path, one in ADAPTER.factors.items():
        if path.startswith("unet."):
            key = path.removeprefix("unet.") + ".weight"
            assert torch.allclose(after[key], before[key] + 0.5 * one.delta(), atol=1e-6), key
    assert torch.equal(after["conv_in.bias"], before["conv_in.bias"])
    fc1 = "encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(
        load_file(tmp_path / "out" / "text_encoder" / "model.safetensors")[fc1],
        load_file(base / "text_encoder" / "model.safetensors")[fc1],
    )
    assert (tmp_path / "out" / "model_index.json").exists() and (tmp_path / "out" / "vae" / "model.bin").exists()
    assert not (tmp_path / "out" / "unet" / "model.bin").exists(), (
        "an unmerged pickle beside the merged weights would be loaded by some"
    )
    with safe_open(tmp_path / "out" / "unet" / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()[merge.KEY]) == [["Ink", 0.5]] and file.metadata()["format"] == "pt"


def test_single_file_in_the_original_layout(tmp_path):
    """The original file names blocks by number, has q, k and v in one tensor, and the projection transposed."""
    unet = "model.diffusion_model."
    names = {
        f"{unet}input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": (8, 8),
        f"{unet}output_blocks.2.1.conv.weight": (8, 8, 3, 3),
        f"{unet}middle_block.1.proj_in.weight": (8, 8, 1, 1),
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight": (12, 6),
        "first": (3,),
    }
    before = {name: drawn(name, shape) for name, shape in names.items()}
    save_file(before, tmp_path / "sd.safetensors")
    finish(merge.merge(tmp_path / "sd.safetensors", tmp_path / "out.safetensors", [(ADAPTER, 1.0)]))
    after = load_file(tmp_path / "out.safetensors")
    for name, one in zip(names, ADAPTER.factors.values(), strict=False):
        assert torch.allclose(after[name] - before[name], one.delta(), atol=1e-5), name
    assert torch.equal(after["first"], before["first"])


def test_open_clip_encoder(tmp_path):
    prefix = "conditioner.embedders.1.model."
    block = f"{prefix}transformer.resblocks.0."
    before = {
        f"{block}attn.in_proj_weight": drawn("in", (18, 6)),
        f"{block}mlp.c_proj.weight": drawn("c", (6, 12)),
        f"{prefix}text_projection": drawn("t", (6, 5)),
    }
    save_file(before, tmp_path / "xl.safetensors")
    finish(merge.merge(tmp_path / "xl.safetensors", tmp_path / "out.safetensors", [(SECOND, 1.0)]))
    change = {name: tensor - before[name] for name, tensor in load_file(tmp_path / "out.safetensors").items()}
    q, v, fc2, projection = (one.delta() for one in SECOND.factors.values())
    assert torch.allclose(change[f"{block}attn.in_proj_weight"], torch.cat([q, torch.zeros(6, 6), v]), atol=1e-5)
    assert torch.allclose(change[f"{block}mlp.c_proj.weight"], fc2, atol=1e-5)
    assert torch.allclose(change[f"{prefix}text_projection"], projection.T, atol=1e-5)
    weight = merge.weight_reader(tmp_path / "xl.safetensors", "sdxl")
    assert torch.equal(weight(f"{LAYER}self_attn.v_proj"), before[f"{block}attn.in_proj_weight"][12:])
    assert torch.equal(weight("text_encoder_2.text_projection"), before[f"{prefix}text_projection"].T)
    with pytest.raises(KeyError):
        weight("unet.conv_in")


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_unmerging_gives_the_base_back_in_its_own_dtype(dtype, bound, tmp_path):
    base = folder(tmp_path, dtype)
    finish(merge.merge(base, tmp_path / "merged", [(ADAPTER, 0.7), (ADAPTER, -0.2)]))
    finish(merge.unmerge(tmp_path / "merged", tmp_path / "back", [(ADAPTER, 0.7), (ADAPTER, -0.2)]))
    for component in ("unet", "text_encoder"):
        before, back = (load_file(root / component / "model.safetensors") for root in (base, tmp_path / "back"))
        for key, tensor in before.items():
            assert back[key].dtype == dtype and (back[key].float() - tensor.float()).abs().max() <= bound * 4


def test_dora_is_merged_by_its_true_change_and_never_unmerged(tmp_path):
    path = f"{BLOCK}.attn1.to_q"
    adapter = Adapter({path: factors("q", 8, 8, dora=True)})
    base = folder(tmp_path)
    finish(merge.merge(base, tmp_path / "out", [(adapter, 1.0)]))
    key = path.removeprefix("unet.") + ".weight"
    before, after = (load_file(root / "unet" / "model.safetensors")[key] for root in (base, tmp_path / "out"))
    assert torch.allclose(after - before, dora.change(adapter.factors[path], before), atol=1e-6)
    with pytest.raises(AdapterError, match="cannot be taken out"):
        merge.unmerge(tmp_path / "out", tmp_path / "back", [(adapter, 1.0)])


@pytest.mark.fault(29, 30)
def test_what_does_not_fit_is_refused_with_counts_before_anything_is_written(tmp_path):
    """An adapter for another model must not be folded into the few modules whose names agree."""
    base = folder(tmp_path)
    wide = Adapter({f"{BLOCK}.attn1.to_q": factors("q", 320, 320)})
    with pytest.raises(AdapterError, match="made for Stable Diffusion 1.5 and does not fit"):
        finish(merge.merge(base, tmp_path / "out", [(wide, 1.0)]))
    with pytest.raises(AdapterError, match="Only 4 of 5 modules"):
        finish(
            merge.merge(
                base, tmp_path / "out", [(Adapter({**ADAPTER.factors, "unet.conv_out": factors("o", 4, 8)}), 1.0)]
            )
        )
    with pytest.raises(ModelError, match="neither"):
        finish(merge.merge(tmp_path, tmp_path / "out", [(ADAPTER, 1.0)]))
    with pytest.raises(ModelError, match="exists already"):
        finish(merge.merge(base, base, [(ADAPTER, 1.0)]))
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("kept", ["unet", "text_encoder"])
def test_a_part_that_the_base_model_lacks_is_named(kept, tmp_path):
    """Such as the text encoder of a checkpoint that holds the UNet alone."""
    base, lacks = folder(tmp_path), {"unet": "the text encoder, which 1", "text_encoder": "the UNet, which 3"}[kept]
    file = base / kept / "model.safetensors"
    with pytest.raises(AdapterError, match=f"This base model lacks {lacks} of the adapter's 4 modules change"):
        finish(merge.merge(file, tmp_path / "out.safetensors", [(ADAPTER, 1.0)]))


@pytest.mark.fault(86)
@pytest.mark.parametrize(
    ("dtype", "weight", "limit"),
    [
        (torch.float32, 1e30, "fp16 holds at most 65,504"),  # finite here, black pictures in every program
        (torch.float16, 1e6, "fp16 holds at most 65,504"),
        (torch.float8_e4m3fn, 1e4, "float8_e4m3fn holds at most 448"),
    ],
)
def test_a_merge_that_overflows_is_refused(dtype, weight, limit, tmp_path):
    said = rf"The merged model overflows: .*\.weight reaches .*e\+.*, and {limit}"
    with pytest.raises(AdapterError, match=said) as raised:
        finish(merge.merge(folder(tmp_path, dtype), tmp_path / "out", [(ADAPTER, weight)]))
    assert raised.value.do == "Give the adapters lower weights." and not (tmp_path / "out").exists()


@pytest.mark.fault(29)
def test_an_adapter_of_the_first_starter_is_not_merged_into_the_present_one(tmp_path):
    base = folder(tmp_path)
    config = {"block_out_channels": [64, 96, 128, 160], "cross_attention_dim": 192, "layers_per_block": 2}
    old = Adapter(ADAPTER.factors, {"ss_base_model_version": "lora_studio_starter"})
    (base / "unet" / "config.json").write_text(json.dumps(config | {"_name_or_path": "lora_studio_starter_2"}))
    with pytest.raises(AdapterError, match="made for the studio's first starter; the base model is the built-in"):
        finish(merge.merge(base, tmp_path / "out", [(old, 1.0)]))
    (base / "unet" / "config.json").write_text(json.dumps(config))
    finish(merge.merge(base, tmp_path / "out", [(old, 1.0)]))


def test_a_merge_that_is_given_up_leaves_nothing(tmp_path):
    base = folder(tmp_path)
    started = merge.merge(base, tmp_path / "out", [(ADAPTER, 1.0)])
    next(started)
    started.close()
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    """A 7 GB checkpoint must merge on an 8 GB machine: peak memory is that of a few times the largest tensor."""
    before = {f"x{i}": torch.zeros(500_000) for i in range(20)} | {"conv_in.weight": torch.zeros(8, 4, 3, 3)}
    save_file(before, tmp_path / "base.safetensors")
    tracemalloc.start()
    finish(
        merge.merge(
            tmp_path / "base.safetensors",
            tmp_path / "out.safetensors",
            [(Adapter({"unet.conv_in": factors("c", 8, 4, kernel=3)}), 1.0)],
        )
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2_000_000
