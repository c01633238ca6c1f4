"""Changes of outputs: literal matrices, their files, and what is refused of them."""

import math

import pytest
import torch
from safetensors.torch import save_file

from lora_studio import adapters
from lora_studio.adapters import Adapter, analysis, blend, dora, merge, recipe, resize
from lora_studio.adapters.ia3 import Ia3Change
from lora_studio.adapters.oft import UNBOUNDED, OftChange
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import BLOCK, Q, drawn, factors

K = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
STEM = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def quarter() -> OftChange:
    """Q = [[0, −1], [1, 0]] is a quarter of a turn: (I + Q)(I − Q)⁻¹ = Q."""
    return OftChange(torch.tensor([[[0.0, -1.0], [0.0, 0.0]]]))


def test_ia3_scales_rows_or_columns():
    W = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert Ia3Change(torch.tensor([0.5, -1.0]), False).change(W).tolist() == [[0.5, 1.0], [-3.0, -4.0]]
    assert Ia3Change(torch.tensor([0.5, -1.0]), True).change(W).tolist() == [[0.5, -2.0], [1.5, -4.0]]
    conv = torch.ones(2, 3, 1, 1)
    assert Ia3Change(torch.tensor([1.0, 2.0]), False).change(conv).flatten(1).tolist() == [[1] * 3, [2] * 3]


def test_oft_rotates_outputs():
    """y' = y R with R = [[0, −1], [1, 0]]: of W = diag(2, 3) the outputs change places."""
    change = quarter().change(torch.diag(torch.tensor([2.0, 3.0])))
    assert torch.allclose(change + torch.diag(torch.tensor([2.0, 3.0])), torch.tensor([[0.0, 3.0], [-2.0, 0.0]]))
    several = OftChange(drawn("b", (3, 4, 4)))
    turned = torch.eye(12) + several.change(torch.eye(12))
    assert torch.allclose(turned @ turned.T, torch.eye(12), atol=1e-5) and not turned[:4, 4:].any()


def test_a_bound_of_a_file_is_multiplied_into_its_blocks():
    """‖Q‖ = √2 · 3 of one 2×2 block; alpha 1 bounds it to 2: kohya's and LyCORIS' alpha · outputs."""
    held = {"oft_blocks": torch.tensor([[[0.0, 3.0], [0.0, 0.0]]]), "alpha": torch.tensor(1.0)}
    assert float(OftChange.read(held).blocks[0, 0, 1]) == pytest.approx(2 / math.sqrt(2))
    for alpha in (0.0, 10.0, UNBOUNDED):
        assert float(OftChange.read(held | {"alpha": torch.tensor(alpha)}).blocks[0, 0, 1]) == 3


def test_files_hold_them_and_give_them_back(tmp_path):
    """In LyCORIS' layout; a number without a dimension is not rounded."""
    changes = {Q: OftChange(drawn("q", (10, 64, 64))), K: Ia3Change(drawn("k", (320,)), False)}
    changes[f"{BLOCK}.ff.net.2"] = Ia3Change(drawn("f", (1280,)), True)
    adapter = Adapter({f"{BLOCK}.attn1.to_v": factors("v", 320, 320)}, outputs=changes)
    path = adapters.write(adapter, tmp_path / "a.safetensors", dtype=torch.float16)
    entries = adapters.header(path).entries
    assert (entries[f"{STEM}.weight"].shape, entries[f"{STEM}.weight"].dtype) == ((320,), "F16")
    assert entries[f"{STEM}.on_input"].dtype == "I64" and entries[f"{STEM}.on_input"].shape == ()
    again = adapters.read(path)
    assert adapters.summary(path).alpha is None, "an OFT's alpha is no scale"
    assert again.family == adapters.summary(path).family == "sd1" and again.kind.title == "OFT"
    assert again.outputs[f"{BLOCK}.ff.net.2"].on_input and not again.outputs[K].on_input
    assert set(again.factors) == {f"{BLOCK}.attn1.to_v"} and again.parameters == adapter.parameters
    assert torch.allclose(again.outputs[Q].blocks.float(), changes[Q].blocks, atol=2e-3)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"oft_blocks": torch.ones(2, 4, 40, 40)}, "a BOFT"),
        ({"oft_blocks": torch.ones(4, 80, 80), "dora_scale": torch.ones(320, 1)}, "has an OFT and dora_scale as well"),
        ({"on_input": torch.tensor(0)}, r"lacks its part 'weight'"),
        ({"weight": torch.ones(2, 160), "on_input": torch.tensor(0)}, r"shape \(2, 160\)"),
    ],
)
def test_damaged_ones_are_refused(tensors, said, tmp_path):
    save_file({f"{STEM}.{role}": tensor for role, tensor in tensors.items()}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=said):
        adapters.read(tmp_path / "a.safetensors")


def test_kohyas_own_prefix_is_read(tmp_path):
    save_file({STEM.replace("lora_", "oft_") + ".oft_blocks": torch.zeros(4, 80, 80)}, tmp_path / "a.safetensors")
    assert list(adapters.read(tmp_path / "a.safetensors").outputs) == [K]


def test_what_needs_factors_refuses_them_by_name(tmp_path):
    adapter, other = Adapter({}, outputs={Q: quarter()}), Adapter({Q: factors("q", 2, 2)})
    chosen = recipe.blend(ingredients=[{"name": name, "weight": 1.0, "sha256": ""} for name in "ab"])
    for purpose, act in {
        "blended": lambda: blend.blend(chosen, [adapter, other]),
        "resized": lambda: resize.to_rank(adapter, 2),
        "analysed": lambda: analysis.analyze(adapter),
        "written for diffusers": lambda: adapters.write(adapter, tmp_path / "a.safetensors", "diffusers"),
    }.items():
        with pytest.raises(AdapterError, match=f"is an OFT, which cannot be {purpose}") as caught:
            act()
        assert caught.value.do == "Export it as plain LoRA first, and use that."
    with pytest.raises(AdapterError, match="an OFT, which cannot be taken out again"):
        merge.unmerge(tmp_path, tmp_path / "b", [(adapter, 1.0)])


def test_as_a_lora_by_the_base_models_weights():
    """Exact where the rank holds ΔW; a plain module stays as it is."""
    W = drawn("w", (8, 6))
    adapter = Adapter({K: factors("k", 4, 4)}, outputs={Q: OftChange(drawn("q", (4, 2, 2)))})
    plain = dora.as_lora(adapter, {Q: W}, 6)
    assert plain.residual < 1e-6 and plain.adapter.factors[K] is adapter.factors[K] and not plain.adapter.outputs
    assert torch.allclose(plain.adapter.factors[Q].delta(), adapter.outputs[Q].change(W), atol=1e-5)
    low = dora.as_lora(adapter, {Q: W}, 2)
    assert 0 < low.residuals[Q] == low.residual < 1
    with pytest.raises(AdapterError, match="of shape"):
        dora.as_lora(adapter, {Q: drawn("w", (6, 6))}, 2)
