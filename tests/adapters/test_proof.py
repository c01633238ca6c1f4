"""The export's proof: it passes what arrives unchanged, and catches every fault that a writer could make."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_studio.adapters import Adapter, proof, read, targets, write
from lora_studio.errors import AdapterError
from lora_studio.families import registry
from lora_studio.families.sdxl import StableDiffusionXL
from tests.adapters.adapter_samples import BLOCK, FAMILIES, TE, Q, drawn, factors, golden, small


@pytest.fixture(params=["sd1", "sdxl"])
def adapter(request, tmp_path) -> Adapter:
    """A few modules of each kind, convolutions among them, all at one alpha as diffusers needs it."""
    tensors = {key: drawn(key, shape) if shape else torch.tensor(1.0) for key, shape in golden(request.param).items()}
    save_file(tensors, tmp_path / "all.safetensors")
    whole = read(tmp_path / "all.safetensors").factors
    picked = {path: whole[path] for index, path in enumerate(whole) if index % 67 == 0 or "layers.0.self_attn" in path}
    for path in (
        "unet.down_blocks.1.resnets.0.conv_shortcut",
        "unet.up_blocks.0.upsamplers.0.conv",
        "unet.conv_in",
        "unet.mid_block.resnets.1.conv1",
        "unet.down_blocks.0.downsamplers.0.conv",
    ):
        picked[path] = factors(path, 8, 6, kernel=3, rank=2, alpha=1.0)
    return Adapter(picked)


def edited(path, change):
    """The file with its tensors and texts altered by ``change``, as a faulty writer would have left it."""
    with safe_open(str(path), framework="pt") as file:
        texts = file.metadata()
    tensors = load_file(path)
    change(tensors, texts)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, texts)
    return path


def test_kohya_file_passes_for_every_program_that_loads_it(adapter, tmp_path):
    path = write(adapter, tmp_path / "a.safetensors")
    result = proof.prove(path, adapter, ("comfyui", "forge", "diffusers"))
    assert result.passed, result.rows
    assert all(row.matched == row.modules == len(adapter.factors) and row.worst < 1e-6 for row in result.rows)
    result.require()


@pytest.mark.parametrize("dialect", ["diffusers", "peft"])
def test_their_own_dialects_pass(adapter, dialect, tmp_path):
    path = write(adapter, tmp_path / "a.safetensors", dialect)
    assert proof.prove(path, adapter, (dialect,)).passed


def test_mixed_alphas_in_a_kohya_file_are_caught_for_diffusers_and_fixed_by_export(tmp_path):
    """diffusers 0.42 gives every attention module of such a file the most frequent alpha; seen with its own loader."""
    adapter = Adapter(
        {
            f"{BLOCK}.attn1.to_{name}": factors(name, 64, 64, alpha=alpha)
            for name, alpha in (("q", 4.0), ("k", 4.0), ("v", 1.0))
        }
    )
    path = write(adapter, tmp_path / "a.safetensors")
    assert [row.passed for row in proof.prove(path, adapter, ("comfyui", "diffusers")).rows] == [True, False]
    done = proof.export(adapter, tmp_path / "b.safetensors")
    assert done.proof.passed and done.residual == 0
    assert proof.prove(done.path, adapter, ("comfyui", "diffusers")).passed


def test_an_export_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"older")
    with pytest.raises(AdapterError, match="ComfyUI would not read"):
        proof.export(small(), tmp_path / "a.safetensors", "diffusers", targets=("comfyui",))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


def test_export_of_a_dora_is_a_plain_lora_that_all_read(tmp_path):
    path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    adapter = Adapter({path: factors("q", 64, 64, dora=True)})
    weights = {path: drawn("w", (64, 64))}
    done = proof.export(adapter, tmp_path / "a.safetensors", weights=weights, rank=16)
    assert done.proof.passed and 0.1 < done.residual < 1
    assert (
        read(done.path).kind.name == "lora"
        and read(done.path).rank == 16
        and read(done.path).metadata["modelspec.title"] == "a"
    )
    with pytest.raises(AdapterError, match="base model"):
        proof.export(adapter, tmp_path / "b.safetensors")


def test_export_of_a_peft_folder(tmp_path):
    assert proof.export(small(), tmp_path / "folder", "peft").proof.passed
    assert (
        sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["text_encoder", "unet"]
        and len(list(tmp_path.iterdir())) == 1
    )


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)])
def test_half_precision_passes_within_its_rounding(dtype, bound, tmp_path):
    row = proof.prove(write(small(), tmp_path / "a.safetensors", dtype=dtype), small(), ("comfyui",)).rows[0]
    assert row.passed and 1e-5 < row.worst < bound


def test_what_a_program_cannot_load_fails_there(tmp_path):
    """ComfyUI and Forge do not load diffusers' names."""
    path = write(small(), tmp_path / "a.safetensors", "diffusers")
    rows = proof.prove(path, small(), ("comfyui", "diffusers")).rows
    assert [(row.passed, row.matched) for row in rows] == [(False, 0), (True, 7)]
    with pytest.raises(AdapterError, match="ComfyUI would not read"):
        proof.prove(path, small(), ("comfyui",)).require()


def UP(key: str) -> bool:
    return key.endswith("up.weight")


FAULTS = {
    "alpha left out": lambda tensors, texts: [tensors.pop(key) for key in list(tensors) if key.endswith("to_q.alpha")],
    "alpha doubled": lambda tensors, texts: tensors.update(
        {key: 2 * tensor for key, tensor in tensors.items() if key.endswith("to_q.alpha")}
    ),
    "one key misnamed": lambda tensors, texts: tensors.update(
        {"lora_unet_x.lora_up.weight": tensors.pop(next(filter(UP, tensors)))}
    ),
    "factors transposed": lambda tensors, texts: tensors.update(
        {key: tensor.flip(0) for key, tensor in tensors.items() if "to_k" in key and key.endswith("down.weight")}
    ),
    "a tensor too many": lambda tensors, texts: tensors.update({"lora_unet_nowhere.alpha": torch.tensor(1.0)}),
    "not a number": lambda tensors, texts: tensors[next(filter(UP, tensors))].fill_(float("nan")),
    "text_model dropped": lambda tensors, texts: tensors.update(
        {key.replace("text_model_", ""): tensors.pop(key) for key in list(tensors) if "text_model" in key}
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_a_writer_is_caught(fault, tmp_path):
    path = edited(write(small(), tmp_path / "a.safetensors"), FAULTS[fault])
    assert not proof.prove(path, small(), ("comfyui",)).rows[0].passed


def test_alpha_lost_from_the_header_is_caught(tmp_path):
    """The fault of diffusers' own converter: alpha = rank, whatever it was."""
    path = edited(
        write(small(), tmp_path / "a.safetensors", "diffusers"),
        lambda tensors, texts: texts.pop("lora_adapter_metadata"),
    )
    assert not proof.prove(path, small(), ("diffusers",)).passed
    folder = write(small(), tmp_path / "folder", "peft")
    config = folder / "unet" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 3}))
    assert not proof.prove(folder, small(), ("peft",)).passed


def test_forge_needs_the_architecture_in_the_header(tmp_path):
    adapter = Adapter({Q: factors(Q, 640, 640)})
    path = edited(
        write(adapter, tmp_path / "a.safetensors"), lambda tensors, texts: texts.pop("modelspec.architecture")
    )
    assert [row.passed for row in proof.prove(path, adapter, ("comfyui", "forge")).rows] == [True, False]


def test_raw_dora_passes_in_peft_only(tmp_path):
    """ComfyUI and Forge divide by the norm of W alone, diffusers drops kohya's scale: the table must say so."""
    adapter = Adapter(
        {
            f"{BLOCK}.attn1.to_q": factors("q", 64, 64, dora=True),
            "unet.conv_in": factors("c", 64, 4, kernel=3, dora=True),
        }
    )
    weights = {path: drawn(path + "w", one.shape) for path, one in adapter.factors.items()}
    assert proof.prove(write(adapter, tmp_path / "p", "peft", raw_dora=True), adapter, ("peft",), weights).passed
    rows = proof.prove(
        write(adapter, tmp_path / "k.safetensors", raw_dora=True), adapter, ("comfyui", "diffusers"), weights
    ).rows
    assert not any(row.passed for row in rows)
    with pytest.raises(AdapterError, match="base model"):
        proof.prove(tmp_path / "k.safetensors", adapter)


def test_all_golden_families_have_their_readers():
    assert set(FAMILIES) <= {"sd1", "sd2", "sdxl"} and set(proof.TARGETS) == set(proof.LABELS)
    with pytest.raises(AdapterError, match="no export target"):
        proof.prove("x", small(), ("photoshop",))


@pytest.mark.parametrize("path", [TE, "text_encoder_2.text_projection"])
def test_a_text_encoder_without_out_proj_is_exported_so_that_diffusers_reads_it(path, tmp_path):
    """Its converter recognizes a text encoder by such a layer; a run on ``qv`` has none. Read by its own code."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers as converted
    from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft

    adapter = Adapter({path: factors(path, 1280, 1280, 2, alpha=1.0)})
    assert not proof.prove(write(adapter, tmp_path / "a.safetensors"), adapter, ("diffusers",)).passed
    made = proof.export(adapter, tmp_path / "b.safetensors")
    assert [row.passed for row in made.proof.rows] == [True] * 4
    component, _, rest = path.partition(".")
    found = {}
    for file in ("a", "b"):
        state, _ = converted(load_file(tmp_path / f"{file}.safetensors"))
        state = {key.removeprefix(f"{component}."): tensor for key, tensor in state.items()}
        if file == "a":
            with pytest.raises(ValueError, match="infer state dict type"):
                convert_state_dict_to_diffusers(state)
        else:
            found = convert_state_dict_to_peft(convert_state_dict_to_diffusers(state))
    assert torch.equal(found.pop(f"{rest}.lora_A.weight"), adapter.factors[path].down)
    assert torch.equal(found.pop(f"{rest}.lora_B.weight"), adapter.factors[path].up)
    assert len(found) == 2 and not any(tensor.any() for tensor in found.values())


def test_the_names_that_programs_look_up_follow_from_what_a_family_says(monkeypatch):
    class Other(StableDiffusionXL):
        name = "other"
        kohya = {"text_encoder": "lora_tea_"}

    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, Other()))
    names = [targets._trainer_name(path, "other") for path in ("unet.conv_in", "text_encoder.text_model.x")]
    assert names == ["lora_unet_input_blocks_0_0", "lora_tea_text_model_x"]
