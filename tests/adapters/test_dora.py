"""DoRA's true change, and its export as a plain LoRA with the honest residual."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from lora_studio.adapters import Adapter, Factors, dora, keys, proof
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import BLOCK, Q, drawn, factors


def test_literal_change():
    """W + ΔV = [3 4; 0 2]: rows of length 5 and 2, set to m = 10 and 1."""
    W = torch.tensor([[2.0, 4.0], [0.0, 1.0]])
    one = Factors(torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 2.0, torch.tensor([10.0, 1.0]))
    assert torch.allclose(dora.change(one, W), torch.tensor([[6.0, 8.0], [0.0, 1.0]]) - W)


def test_a_fresh_dora_changes_nothing():
    """m starts as the rows' lengths and B as zero."""
    W = drawn("w", (6, 4, 3, 3))
    fresh = Factors(drawn("d", (2, 4, 3, 3)), torch.zeros(6, 2, 1, 1), 2.0, W.flatten(1).norm(dim=1))
    assert dora.change(fresh, W).abs().max() < 1e-6


def test_agrees_with_pefts_layer():
    """peft's forward is the definition that the training uses."""
    peft = pytest.importorskip("peft")
    layer = torch.nn.Sequential(torch.nn.Linear(12, 10, bias=False))
    W = layer[0].weight.detach().clone()
    model = peft.get_peft_model(layer, peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"], use_dora=True))
    wrapped = model.base_model.model[0]
    wrapped.lora_B["default"].weight.data = drawn("B", (10, 4))
    wrapped.lora_magnitude_vector["default"].weight.data = drawn("m", (10,)).abs()
    parts = [
        getattr(wrapped, name)["default"].weight.detach() for name in ("lora_A", "lora_B", "lora_magnitude_vector")
    ]
    one = Factors(parts[0], parts[1], 6.0, parts[2])
    x = drawn("x", (3, 12))
    model.eval()
    assert torch.allclose(model(x), x @ (W + dora.change(one, W)).T, atol=1e-5)


def test_as_lora_is_exact_at_full_rank_and_honest_below():
    conv = "unet.down_blocks.0.resnets.0.conv1"
    adapter = Adapter(
        {
            Q: factors(Q, 24, 20, dora=True),
            conv: factors(conv, 16, 4, kernel=3, dora=True),
            f"{BLOCK}.attn1.to_k": factors("k", 8, 8),
        }
    )
    weights = {path: drawn(path + "w", one.shape) for path, one in adapter.factors.items()}
    plain = dora.as_lora(adapter, weights, 36)
    assert plain.adapter.kind.name == "lora" and plain.residual < 1e-5 and set(plain.residuals) == {Q, conv}
    for path, one in adapter.factors.items():
        assert torch.allclose(plain.adapter.factors[path].delta(), dora.change(one, weights[path]), atol=1e-4)
    low = dora.as_lora(adapter, weights.__getitem__, 4)
    true = dora.change(adapter.factors[Q], weights[Q])
    assert low.residuals[Q] == pytest.approx(
        float((true - low.adapter.factors[Q].delta()).norm() / true.norm()), rel=1e-4
    )
    σ = torch.linalg.svdvals(true.double())
    assert low.residuals[Q] == pytest.approx(float(σ[4:].norm() / σ.norm()), rel=1e-4)


def test_a_weight_that_is_missing_or_of_another_shape_is_named():
    adapter = Adapter({Q: factors(Q, 8, 8, dora=True)})
    with pytest.raises(AdapterError, match="no weight at"):
        dora.as_lora(adapter, {}, 4)
    with pytest.raises(AdapterError, match="shape"):
        dora.as_lora(adapter, {Q: torch.ones(8, 4)}, 4)


def comfyui(W: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """ComfyUI's ``weight_decompose`` on a module's tensors, as its source reads: the norm is that of W alone."""
    down, up = tensors["lora_down.weight"].float(), tensors["lora_up.weight"].float()
    difference = (up.flatten(1) @ down.flatten(1)).reshape(W.shape) * (tensors["alpha"] / down.shape[0])
    norm = W.reshape(W.shape[0], -1).norm(dim=1, keepdim=True).reshape(W.shape[0], *[1] * (W.dim() - 1))
    norm = norm + torch.finfo(W.dtype).eps
    return (W + difference) * (tensors["dora_scale"] / norm) - W


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_dora_can_be_kept_for_comfyui_and_forge(dtype, tmp_path):
    """Written as peft means it, they would draw another change; with ‖W‖ / ‖W + ΔV‖ in m they compute the true one."""
    conv = "unet.down_blocks.0.resnets.0.conv1"
    adapter = Adapter({Q: factors(Q, 24, 20, dora=True), conv: factors(conv, 16, 4, kernel=3, dora=True)})
    weights = {path: drawn(path + "w", one.shape) for path, one in adapter.factors.items()}
    made = proof.export(adapter, tmp_path / "a.safetensors", dtype=dtype, weights=weights, form="own")
    assert [row.target for row in made.proof.rows] == ["comfyui", "forge"] and made.proof.passed
    tensors = load_file(made.path)
    for path, one in adapter.factors.items():
        stem = keys.to_kohya(path, adapter.family)
        parts = {name.removeprefix(f"{stem}."): tensor for name, tensor in tensors.items() if name.startswith(stem)}
        true = dora.change(one, weights[path])
        error = (comfyui(weights[path], parts) - true).norm() / true.norm()
        assert error < (1e-6 if dtype == torch.float32 else 1e-3)
        raw = comfyui(weights[path], parts | {"dora_scale": one.magnitude.reshape(parts["dora_scale"].shape)})
        assert (raw - true).norm() / true.norm() > 0.1
