"""What is not ours is refused by its name, and a header that claims another model is never believed in silence."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from lora_studio import adapters
from lora_studio.adapters import Adapter, foreign, metadata, proof
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import BLOCK, TE, Q, factors

FLUX = ["lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_single_blocks_3_linear1"]
ANIMA = ["lora_unet_blocks_0_self_attn_q_proj", "lora_unet_llm_adapter_blocks_0_mlp_0"]
CLIP = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
CASES = [
    (FLUX, {"ss_network_module": "networks.lora_flux", "modelspec.architecture": "flux-1-dev/lora"}, "Flux"),
    (FLUX, {}, "Flux"),
    ([*FLUX, CLIP], {}, "Flux"),  # its text encoder is SDXL's first as well
    ([CLIP], {"modelspec.architecture": "flux-1-dev/lora"}, "Flux"),
    (ANIMA, {"ss_network_module": "networks.lora_anima"}, "Anima"),
    (ANIMA, {}, "Anima"),
    (["lora_unet_joint_blocks_0_x_block_attn_qkv"], {"ss_base_model_version": "sd3m"}, "Stable Diffusion 3"),
    (["transformer.single_transformer_blocks.0.attn.to_q"], {}, "Flux"),
    (["diffusion_model.context_refiner.0.attention.qkv"], {}, "Lumina"),
]


def saved(path, stems, texts):
    tensors = {}
    for stem in stems:
        tensors |= {f"{stem}.lora_down.weight": torch.ones(1, 768), f"{stem}.lora_up.weight": torch.ones(768, 1)}
    save_file(tensors, path, texts)
    return path


@pytest.mark.parametrize(("stems", "texts", "title"), CASES)
def test_an_adapter_of_another_architecture_is_refused_by_name(stems, texts, title, tmp_path):
    """A Flux file in kohya's names was taken for Stable Diffusion 1.5, and its header rewritten."""
    path = saved(tmp_path / "a.safetensors", stems, texts)
    for look in (adapters.read, adapters.summary):
        with pytest.raises(AdapterError, match=f"an adapter for {title}, which"):
            look(path)


@pytest.mark.parametrize(
    ("end", "shape", "name"),
    [
        ("oft_diag", (4, 80, 80), "an OFT"),
        ("b1.weight", (4, 80), "a GLoRA"),
        ("diff_b", (320,), r"also changes biases \(diff_b\)"),
        ("w_norm", (320,), "changes of normalization layers"),
    ],
)
def test_another_method_is_refused_by_name(end, shape, name, tmp_path):
    save_file(
        {f"lora_unet_{BLOCK[5:].replace('.', '_')}_attn1_to_q.{end}": torch.ones(shape)}, tmp_path / "a.safetensors"
    )
    with pytest.raises(AdapterError, match=name):
        adapters.read(tmp_path / "a.safetensors")


def test_lora_te1_alone_is_sdxl(tmp_path):
    """The encoder is SD 1.5's too; only SDXL's is named so. With the other's name nothing would load it."""
    path = saved(tmp_path / "a.safetensors", [CLIP], {})
    assert adapters.read(path).family == adapters.summary(path).family == "sdxl"
    again = adapters.write(adapters.read(path), tmp_path / "b.safetensors")
    assert f"{CLIP}.alpha" in adapters.header(again).entries
    sd1 = saved(tmp_path / "c.safetensors", [CLIP.replace("te1", "te")], {})
    assert adapters.read(sd1).family == "sd1"


def test_a_proof_fails_for_paths_that_no_model_has(tmp_path):
    """Names with peft's wrapper in them passed for three programs, none of which would have found them."""
    wrapped = Adapter({f"unet.base_model.model.{BLOCK[5:]}.attn1.to_q": factors("q", 320, 320)})
    for target, dialect in (("comfyui", "kohya"), ("forge", "kohya"), ("diffusers", "diffusers"), ("peft", "peft")):
        path = adapters.write(wrapped, tmp_path / target, dialect)
        (row,) = proof.prove(path, wrapped, (target,)).rows
        assert (row.passed, row.matched) == (False, 0)


def test_the_proof_knows_sdxls_text_projection(tmp_path):
    """The second encoder alone ends in one; diffusers loads it beside the encoder's attention."""
    shapes = {
        TE.replace("q_proj", "out_proj"): 768,
        "text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj": 1280,
        "text_encoder_2.text_projection": 1280,
    }
    adapter = Adapter({path: factors(path, width, width, 2) for path, width in shapes.items()})
    assert adapter.family == "sdxl"
    result = proof.prove(adapters.write(adapter, tmp_path / "a.safetensors"), adapter)
    assert [row.matched for row in result.rows] == [3, 3, 3] and result.passed


def test_a_contradicting_header_is_told():
    assert "made for Flux, but its shapes are those of Stable Diffusion XL" in foreign.contradiction(
        {"modelspec.architecture": "flux-1-dev/lora"}, "sdxl"
    )
    assert "made for Stable Diffusion 2" in foreign.contradiction({"ss_base_model_version": "sd_v2"}, "sd1")
    assert not foreign.contradiction({"ss_base_model_version": "sd_v1"}, "sd1") + foreign.contradiction({}, "sd1")


def test_the_claim_of_a_header_stays_where_the_shapes_tell_nothing(tmp_path):
    """A model of other widths: its header was overwritten with an empty version."""
    claim = {"ss_base_model_version": "sdxl_base_v1-0", "modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
    adapter = Adapter({Q: factors("q", 5000, 5000, 1)}, claim)
    assert adapter.family == "unknown"
    assert claim.items() <= metadata.technical("unknown", [1], [1.0], claim, "").items()
