"""Every method's stored tensors give the change that its own formula says, to the last entry."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from lora_studio.adapters import Adapter, blend, keys, read, recipe, resize, stored, summary
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import Q, drawn, factors

STEM = keys.to_kohya(Q, "sd1")


def d(name: str, *shape: int) -> torch.Tensor:
    return drawn(name, shape)


def test_literal_lora():
    """ΔW = (alpha / r) · up · down, by hand."""
    module = {"down": torch.tensor([[1.0, 2.0, 0.0]]), "up": torch.tensor([[3.0], [4.0]]), "alpha": torch.tensor(0.5)}
    assert torch.equal(stored.factors(module, Q).delta(), torch.tensor([[1.5, 3.0, 0.0], [2.0, 4.0, 0.0]]))


def test_locon_convolution():
    """A convolution by ``down`` and then by the 1×1 ``up`` is the convolution by ΔW."""
    module = {"down": d("d", 2, 3, 3, 3), "up": d("u", 5, 2, 1, 1), "alpha": torch.tensor(1.0)}
    x = d("x", 1, 3, 6, 6)
    twice = torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, module["down"]), module["up"]) * 0.5
    assert torch.allclose(torch.nn.functional.conv2d(x, stored.factors(module, Q).delta()), twice, atol=1e-5)


def test_locon_with_a_tucker_core():
    module = {"down": d("d", 2, 3, 1, 1), "mid": d("m", 2, 2, 3, 3), "up": d("u", 5, 2, 1, 1)}
    x = d("x", 1, 3, 6, 6)
    conv = torch.nn.functional.conv2d
    assert torch.allclose(
        conv(x, stored.factors(module, Q).delta()),
        conv(conv(conv(x, module["down"]), module["mid"]), module["up"]),
        atol=1e-5,
    )


def test_loha_is_an_exact_lora_of_the_product_of_ranks():
    module = {
        "hada_w1_a": d("a", 5, 2),
        "hada_w1_b": d("b", 2, 4),
        "hada_w2_a": d("c", 5, 2),
        "hada_w2_b": d("e", 2, 4),
        "alpha": torch.tensor(1.0),
    }
    found = stored.factors(module, Q)
    expected = 0.5 * (module["hada_w1_a"] @ module["hada_w1_b"]) * (module["hada_w2_a"] @ module["hada_w2_b"])
    assert found.rank == 4 and torch.allclose(found.delta(), expected, atol=1e-6)


def test_loha_convolution_with_tucker_cores():
    module = {f"hada_w{s}_{p}": d(s + p, 2, 5 if p == "a" else 4) for s in "12" for p in "ab"} | {
        f"hada_t{s}": d("t" + s, 2, 2, 3, 3) for s in "12"
    }
    sides = [
        torch.einsum("ijkl,jr,ip->prkl", module[f"hada_t{s}"], module[f"hada_w{s}_b"], module[f"hada_w{s}_a"])
        for s in "12"
    ]
    found = stored.factors(module, Q)
    assert found.shape == (5, 4, 3, 3) and torch.allclose(found.delta(), sides[0] * sides[1], atol=1e-5)


@pytest.mark.parametrize("whole", ["1", "2", "12", ""])
def test_lokr_is_a_kronecker_product(whole):
    shapes = {"1": (2, 3), "2": (4, 5)}
    module, sides = {"alpha": torch.tensor(1.5)}, {}
    for side, (out, into) in shapes.items():
        if side in whole:
            module[f"lokr_w{side}"] = sides[side] = d(side, out, into)
        else:
            a, b = d(side + "a", out, 3), d(side + "b", 3, into)
            module |= {f"lokr_w{side}_a": a, f"lokr_w{side}_b": b}
            sides[side] = a @ b
    scale = 1.0 if whole == "12" else 0.5
    assert torch.allclose(stored.factors(module, Q).delta(), scale * torch.kron(sides["1"], sides["2"]), atol=1e-5)


@pytest.mark.parametrize("tucker", [False, True])
def test_lokr_convolution(tucker):
    w1 = d("1", 2, 2)
    if tucker:
        parts = {"lokr_w2_a": d("a", 3, 4), "lokr_w2_b": d("b", 3, 5), "lokr_t2": d("t", 3, 3, 3, 3)}
        w2 = torch.einsum("ijkl,jr,ip->prkl", parts["lokr_t2"], parts["lokr_w2_b"], parts["lokr_w2_a"])
    else:
        parts = {"lokr_w2": d("2", 4, 5, 3, 3)}
        w2 = parts["lokr_w2"]
    expected = torch.kron(w1[:, :, None, None], w2.contiguous())
    found = stored.factors({"lokr_w1": w1, **parts}, Q)
    assert found.shape == (8, 10, 3, 3) and torch.allclose(found.delta(), expected, atol=1e-5)


def test_lycoris_files_are_read_under_their_own_names(tmp_path):
    loha = {
        f"{STEM}.hada_w{side}_{part}": d(side + part, *shape)
        for side in "12"
        for part, shape in (("a", (6, 2)), ("b", (2, 6)))
    }
    save_file(loha, tmp_path / "loha.safetensors")
    assert read(tmp_path / "loha.safetensors").factors[Q].shape == (6, 6)
    lokr = {
        f"{STEM}.lokr_w1": d("1", 2, 2),
        f"{STEM}.lokr_w2_a": d("a", 3, 1),
        f"{STEM}.lokr_w2_b": d("b", 1, 3),
        f"{STEM}.alpha": torch.tensor(1.0),
    }
    save_file(lokr, tmp_path / "lokr.safetensors")
    assert read(tmp_path / "lokr.safetensors").factors[Q].shape == (6, 6)


def test_dora_by_inputs_is_refused():
    """LyCORIS can normalize by inputs; applying it by outputs would be another picture."""
    module = {"down": d("d", 2, 6), "up": d("u", 6, 2), "dora_scale": torch.ones(1, 6)}
    with pytest.raises(AdapterError, match="by inputs"):
        stored.factors(module, Q)
    assert stored.factors(module | {"dora_scale": torch.ones(6, 1)}, Q).magnitude.shape == (6,)


CONVOLUTIONS = {
    "unet.down_blocks.0.attentions.0.proj_in": (64, 64, 1, 1),
    "unet.down_blocks.0.resnets.0.conv1": (64, 64, 3, 3),
    "unet.down_blocks.0.downsamplers.0.conv": (64, 64, 3, 3),
}


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_a_products_kernel_is_known_from_the_path(kind, tmp_path):
    """LyCORIS stores a convolution's factors as a linear layer's and reshapes the product to the weight: diffusers
    refused the export by its size, and a LoRA of the same layers could not be blended with it.
    """
    shapes = {**CONVOLUTIONS, "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (64, 64)}
    tensors, expected = {}, {}
    for path, (out, into, *kernel) in shapes.items():
        stem, flat = keys.to_kohya(path, "sd1"), into * kernel[0] * kernel[1] if kernel else into
        if kind == "loha":
            parts = {
                f"hada_w{s}_{p}": d(path + s + p, *((out, 2) if p == "a" else (2, flat))) for s in "12" for p in "ab"
            }
            a1, b1, a2, b2 = parts.values()
            product = (a1 @ b1) * (a2 @ b2)
        else:
            parts = {
                "lokr_w1": d(path + "1", 4, 4),
                "lokr_w2_a": d(path + "a", 16, 2),
                "lokr_w2_b": d(path + "b", 2, flat // 4),
            }
            product = torch.kron(parts["lokr_w1"], parts["lokr_w2_a"] @ parts["lokr_w2_b"])
        tensors |= {f"{stem}.{role}": tensor for role, tensor in parts.items()}
        tensors[f"{stem}.alpha"], expected[path] = torch.tensor(1.0), (product / 2).reshape(shapes[path])
    save_file(tensors, tmp_path / "a.safetensors")
    adapter = read(tmp_path / "a.safetensors")
    assert adapter.family == "starter"
    for path, change in expected.items():
        assert adapter.factors[path].shape == shapes[path]
        assert torch.allclose(adapter.factors[path].delta(), change, atol=1e-4), path
    lora = Adapter({path: factors(path, *shape[:2], kernel=shape[-1]) for path, shape in CONVOLUTIONS.items()})
    both = blend.blend(
        recipe.blend(ingredients=[blend.ingredient("a", 1, adapter), blend.ingredient("b", 1, lora)]), [adapter, lora]
    )
    for path, one in lora.factors.items():
        assert torch.allclose(both.adapter.factors[path].delta(), expected[path] + one.delta(), atol=1e-4)


def test_a_linear_layers_lora_may_be_stored_as_a_convolutions(tmp_path):
    """SDXL's proj_in is linear: diffusers refuses 1×1 factors there."""
    path = "unet.down_blocks.1.attentions.0.proj_in"
    stem = keys.to_kohya(path, "sdxl")
    down, up = d("d", 2, 640, 1, 1), d("u", 640, 2, 1, 1)
    plain = {}
    for letter in "qk":
        deep = f"{stem.removesuffix('proj_in')}transformer_blocks_1_attn1_to_{letter}"
        plain |= {f"{deep}.lora_down.weight": d("e", 2, 640), f"{deep}.lora_up.weight": d("v", 640, 2)}
    save_file({f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, **plain}, tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors").factors[path]
    assert found.shape == (640, 640) and torch.equal(found.down, down[:, :, 0, 0])


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 3, 3, 3), (4, 3, 1, 1)])
def test_a_full_difference_is_itself(shape, tmp_path):
    """ComfyUI adds ``diff`` as it is, whatever alpha is beside it."""
    whole = d("whole", *shape)
    module = {"diff": whole, "diff_b": torch.zeros(shape[0]), "alpha": torch.tensor(7.0)}
    found = stored.factors(module, Q)
    assert torch.equal(found.delta(), whole) and found.shape == shape


def test_a_file_of_full_differences_is_read_listed_and_made_small(tmp_path):
    B, A = d("b", 640, 2), d("a", 2, 640)
    save_file({f"{STEM}.diff": B @ A}, tmp_path / "full.safetensors")
    adapter, card = read(tmp_path / "full.safetensors"), summary(tmp_path / "full.safetensors")
    assert (card.method, card.dialect, card.family, card.rank) == ("full", "kohya", "sd1", 0)
    assert torch.equal(adapter.factors[Q].delta(), B @ A)
    small = resize.to_rank(adapter, 2)
    assert small.residual < 1e-5 and torch.allclose(small.adapter.factors[Q].delta(), B @ A, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ({"diff": torch.ones(5, 3), "diff_b": torch.ones(5)}, r"also changes biases \(diff_b\)"),
        (
            {"down": torch.ones(1, 3), "up": torch.ones(5, 1), "diff_b": torch.ones(5)},
            r"also changes biases \(diff_b\)",
        ),
        ({"diff": torch.ones(5, 3), "up": torch.ones(5, 1)}, "a full difference and up as well"),
    ],
)
def test_what_factors_cannot_hold_is_refused(module, said):
    with pytest.raises(AdapterError, match=said) as caught:
        stored.factors(module, Q)
    assert caught.value.where == Q


def test_a_difference_of_a_norm_is_refused_by_its_name(tmp_path):
    norm = "lora_unet_down_blocks_1_attentions_0_norm.diff"
    save_file({norm: torch.ones(640), f"{STEM}.diff": torch.ones(640, 640)}, tmp_path / "full.safetensors")
    with pytest.raises(AdapterError, match="full differences of other layers.*1 of 2 tensors, such as lora_unet"):
        read(tmp_path / "full.safetensors")
