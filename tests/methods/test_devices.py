"""What a method adds to a model lies where the model does."""

import pytest
from torch import nn

from lora_studio.methods.registry import METHODS
from tests.methods.test_methods import options

LEARN_WORDS = ("textual-inversion", "prompt-tuning")
PATHS = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")


@pytest.mark.parametrize(
    "method", [one for name, one in METHODS.items() if name not in LEARN_WORDS], ids=lambda one: one.name
)
def test_learned_weights_are_on_the_models_device(method):
    """A method trains on the CPU and fails on every GPU."""
    model = nn.Module()
    for path in PATHS:
        into = model
        for part in path.split(".")[:-1]:
            if part not in into._modules:
                into.add_module(part, nn.Module())
            into = into.get_submodule(part)
        into.add_module(path.rpartition(".")[2], nn.Linear(8, 8, device="meta"))
    model.requires_grad_(False)
    taken = [f"block.{path}" for path in PATHS if method.takes(f"block.{path}")]
    whole = nn.ModuleDict({"block": model})
    method.inject(whole, taken, options(rank=2, alpha=1.0, lokr_factor=2, oft_block_size=4))
    learned = [one for one in whole.parameters() if one.requires_grad]
    assert learned and {one.device.type for one in whole.parameters()} == {"meta"}
