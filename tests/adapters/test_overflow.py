"""Numbers that are finite in the file and infinite where they are used."""

import pytest
import torch

from lora_studio.adapters import Adapter, Factors, formats, overflow, read
from lora_studio.errors import AdapterError
from tests.adapters.adapter_samples import Q

STEM = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
ONES = {"lora_down.weight": torch.ones(2, 640), "lora_up.weight": torch.ones(640, 2), "alpha": torch.tensor(2.0)}


def file(tmp_path, **changed):
    path = tmp_path / "ink.safetensors"
    tensors = {f"{STEM}.{role}": tensor for role, tensor in (ONES | changed).items()}
    path.write_bytes(formats.serialized(tensors, {}, path))
    return path


@pytest.mark.fault(86)
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"alpha": torch.tensor(1e30)}, f"the change of {Q} with its alpha of 1e\\+30 reaches 1e\\+30"),
        ({"lora_down.weight": torch.full((2, 640), 1e300, dtype=torch.float64)}, f"down factor of {Q} holds 1e\\+300"),
        ({"lora_up.weight": torch.full((640, 2), 65536.0)}, f"up factor of {Q} holds 6.55e\\+04"),
        (
            {"lora_up.weight": torch.full((640, 2), 300.0), "lora_down.weight": torch.full((2, 640), 300.0)},
            f"the change of {Q} reaches 1.8e\\+05",
        ),
        ({"dora_scale": torch.full((640, 1), 1e6)}, f"magnitude factor of {Q} holds 1e\\+06"),
    ],
    ids=["alpha", "float64", "factor", "product", "magnitude"],
)
def test_what_fp16_cannot_hold_is_refused_with_the_module_and_the_value(changed, said, tmp_path):
    """ΔW of rank 2 with factors of ones and alpha 2 is 2 everywhere."""
    with pytest.raises(AdapterError, match=said):
        read(file(tmp_path, **changed))


def test_what_it_can_hold_is_read_also_where_an_estimate_would_be_too_high(tmp_path):
    """Cauchy and Schwarz allow 640 · 250², yet the factors' entries never meet: ΔW is 0."""
    down, up = torch.zeros(2, 640), torch.zeros(640, 2)
    down[0], up[:, 1] = 250.0, 300.0
    assert read(file(tmp_path, **{"lora_down.weight": down, "lora_up.weight": up})).factors[Q].delta().abs().max() == 0
    largest = Adapter({Q: Factors(torch.full((1, 4), 65504.0), torch.ones(4, 1), 1.0)})
    overflow.require_usable(largest.factors, "x")
