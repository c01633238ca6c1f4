"""Adapters in forms of their own: they are written as they were read, proved for who reads them, and become LoRAs."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_studio import adapters
from lora_studio.adapters import Adapter, dora, formats, kinds, proof, resize, stored
from lora_studio.adapters.ia3 import Ia3Change
from lora_studio.adapters.oft import OftChange
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import BLOCK, assert_same, drawn, factors

K, CONV = f"{BLOCK}.attn2.to_k", "unet.down_blocks.0.resnets.0.conv1"
STEMS = {path: f"lora_unet_{path[5:].replace('.', '_')}" for path in (K, CONV)}
LOHA = {
    K: {"hada_w1_a": (320, 2), "hada_w1_b": (2, 768), "hada_w2_a": (320, 2), "hada_w2_b": (2, 768), "alpha": ()},
    CONV: {"hada_w1_a": (2, 320), "hada_w1_b": (2, 320), "hada_w2_a": (2, 320), "hada_w2_b": (2, 320)}
    | {"hada_t1": (2, 2, 3, 3), "hada_t2": (2, 2, 3, 3), "alpha": ()},
}
LOKR = {
    K: {"lokr_w1": (4, 8), "lokr_w2_a": (80, 3), "lokr_w2_b": (3, 96), "alpha": ()},
    CONV: {"lokr_w1_a": (4, 1), "lokr_w1_b": (1, 8), "lokr_w2": (80, 40, 3, 3), "alpha": ()},
}
WHOLE = {K: {"lokr_w1": (4, 8), "lokr_w2": (80, 96), "alpha": ()}, CONV: {"lokr_w1": (4, 8), "lokr_w2": (80, 40, 3, 3)}}
FULL = {K: {"diff": (320, 768)}, CONV: {"diff": (320, 320, 3, 3)}}


def saved(path, shapes):
    tensors = {
        f"{STEMS[module]}.{role}": 0.1 * drawn(module + role, shape) if shape else torch.tensor(3.0)
        for module, parts in shapes.items()
        for role, shape in parts.items()
    }
    save_file(tensors, path, {"modelspec.architecture": "stable-diffusion-v1/lora"})
    return tensors


@pytest.mark.parametrize(("shapes", "kind", "rank"), [(LOHA, "loha", 2), (LOKR, "lokr", 3), (FULL, "full", 0)])
def test_a_file_is_written_as_it_was_read(shapes, kind, rank, tmp_path):
    before = saved(tmp_path / "a.safetensors", shapes)
    adapter = adapters.read(tmp_path / "a.safetensors")
    again = load_file(adapters.write(adapter, tmp_path / "b.safetensors"))
    assert set(again) == set(before) and all(torch.equal(again[key], before[key]) for key in before)
    assert adapter.kind.name == kind and adapter.parameters == sum(one.numel() for one in before.values() if one.dim())
    texts = adapters.header(tmp_path / "b.safetensors").metadata
    assert json.loads(texts["ss_network_args"]) == {"algo": kind} and texts["ss_network_module"] == "lycoris.kohya"
    assert texts["ss_network_dim"] in (str(rank), "Dynamic")
    assert formats.size(adapter) == pytest.approx((tmp_path / "b.safetensors").stat().st_size, abs=200)


def test_what_is_changed_has_no_parts(tmp_path):
    """A copy of parts next to changed factors would be written in their place."""
    saved(tmp_path / "a.safetensors", LOHA)
    one = adapters.read(tmp_path / "a.safetensors").factors[K]
    assert one.parts and replace(one, alpha=2 * one.alpha).parts is None and replace(one, up=one.up + 1).parts is None
    doubled = one.map(lambda tensor: 2 * tensor)
    assert torch.allclose(doubled.delta(), 16 * one.delta(), rtol=1e-4)  # four parts are multiplied
    half = one.to(torch.float16)
    assert half.parts.tensors["hada_w1_a"].dtype == torch.float16 and half.parts.tensors["alpha"] == 3
    assert torch.equal(half.delta(), stored.factors(half.parts.tensors, K).delta())


@pytest.mark.parametrize("shapes", [LOHA, LOKR, WHOLE, FULL], ids=["loha", "lokr", "whole", "full"])
def test_comfyui_forge_and_a1111_read_them_and_diffusers_does_not(shapes, tmp_path):
    saved(tmp_path / "a.safetensors", shapes)
    adapter = adapters.read(tmp_path / "a.safetensors")
    done = proof.export(adapter, tmp_path / "b.safetensors", dtype=torch.float16)
    assert [row.target for row in done.proof.rows] == ["comfyui", "forge", "a1111"] and done.residual == 0
    assert adapters.read(done.path).kind == adapter.kind and max(row.worst for row in done.proof.rows) < 2e-3
    row = proof.prove(done.path, adapter, ("diffusers",)).rows[0]
    assert not row.passed and row.note == f"It does not read {adapter.kind.a_title}."


def test_a_loha_becomes_a_lora_exactly_or_of_a_rank(tmp_path):
    saved(tmp_path / "a.safetensors", LOHA)
    adapter = adapters.read(tmp_path / "a.safetensors")
    exact = proof.export(adapter, tmp_path / "b.safetensors", form="lora")
    assert [row.target for row in exact.proof.rows] == ["comfyui", "forge", "a1111", "diffusers"]
    assert adapters.read(exact.path).rank == 4 and adapters.read(exact.path).kind.name == "lora"
    low = proof.export(adapter, tmp_path / "c.safetensors", form="lora", rank=1)
    assert adapters.read(low.path).rank == 1 and low.residual == resize.to_rank(adapter, 1).residual > 0.1
    assert resize.to_energy(adapter, 1.0).adapter.kind.name == "lora"


def test_readers_faults_are_seen(tmp_path):
    """A file whose alpha is twice as large as it should be."""
    tensors = saved(tmp_path / "a.safetensors", LOHA)
    adapter = adapters.read(tmp_path / "a.safetensors")
    save_file(
        {key: 2 * one if key.endswith("alpha") else one for key, one in tensors.items()}, tmp_path / "b.safetensors"
    )
    assert [row.passed for row in proof.prove(tmp_path / "b.safetensors", adapter, ("comfyui", "a1111")).rows] == [
        False
    ] * 2


def on_outputs(change: str) -> tuple[Adapter, dict[str, torch.Tensor]]:
    """An OFT or (IA)³ of SD 1.5 beside a plain LoRA of another layer, and the weights that it changes."""
    made = {
        "oft": {K: OftChange(0.1 * drawn("k", (10, 32, 32))), CONV: OftChange(0.1 * drawn("c", (40, 8, 8)))},
        "ia3": {K: Ia3Change(drawn("k", (320,)), False), f"{BLOCK}.ff.net.2": Ia3Change(drawn("f", (1280,)), True)},
    }[change]
    shapes = {K: (320, 768), CONV: (320, 320, 3, 3), f"{BLOCK}.ff.net.2": (320, 1280)}
    adapter = Adapter({f"{BLOCK}.attn1.to_q": factors("q", 320, 320)}, outputs=made)
    return adapter, {path: drawn(path + "w", shapes[path]) for path in made}


@pytest.mark.parametrize(("change", "programs"), [("oft", ["comfyui", "a1111"]), ("ia3", ["a1111"])])
def test_oft_and_ia3_keep_their_kind_for_who_reads_it(change, programs, tmp_path):
    adapter, weights = on_outputs(change)
    done = proof.export(adapter, tmp_path / "a.safetensors", weights=weights, form="own")
    assert [row.target for row in done.proof.rows] == programs and done.residual == 0
    assert_same(adapters.read(done.path), Adapter(adapter.factors))
    forge = proof.prove(done.path, replace(adapter, factors={}), ("forge",), weights).rows[0]
    assert forge.note == f"It does not read {adapter.kind.a_title}."
    with pytest.raises(AdapterError, match="Forge would not read"):
        proof.export(adapter, tmp_path / "b.safetensors", weights=weights, form="own", targets=("forge",))


@pytest.mark.parametrize("change", ["oft", "ia3"])
def test_oft_and_ia3_become_a_lora_or_a_full_difference_by_the_base_model(change, tmp_path):
    adapter, weights = on_outputs(change)
    plain = proof.export(adapter, tmp_path / "a.safetensors", weights=weights)
    assert len(plain.proof.rows) == 4 and adapters.read(plain.path).rank == 64 and 0 < plain.residual < 1
    full = proof.export(adapter, tmp_path / "b.safetensors", weights=weights, form="full")
    read = adapters.read(full.path)
    assert full.residual == 0 and read.kind == kinds.FULL and len(read.factors) == 3
    for path, one in adapter.outputs.items():
        assert torch.allclose(read.factors[path].delta(), dora.change(one, weights[path]), atol=1e-5)
    with pytest.raises(AdapterError, match="depends on the base model"):
        proof.export(adapter, tmp_path / "c.safetensors")
    with pytest.raises(AdapterError, match="holds a plain LoRA"):
        proof.export(adapter, tmp_path / "c.safetensors", "diffusers", weights=weights, form="full")
