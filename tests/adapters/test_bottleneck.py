"""A file of adapter layers: read back as it was, and refused where a change of weights is needed."""

import pytest
import torch

from lora_studio.adapters import Adapter, listing, proof, read, resize, write
from lora_studio.adapters.bottleneck import Bottleneck
from lora_studio.errors import AdapterError
from lora_studio.families import registry

PATH = "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2"


@pytest.fixture
def adapter() -> Adapter:
    width = registry.named("sd1").modules[PATH][0]
    drawn = (torch.randn(shape) for shape in ((2, width), (2,), (width, 2), (width,)))
    return Adapter({}, {"ss_base_model_version": "sd_v1"}, outputs={PATH: Bottleneck(*drawn)})


def test_it_is_read_as_it_was_written(adapter, tmp_path):
    path = write(adapter, tmp_path / "layers.safetensors")
    again = read(path)
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            again.outputs[PATH].tensors().values(), adapter.outputs[PATH].tensors().values(), strict=True
        )
    )
    seen = listing.summary(path)
    assert (again.family, seen.family, seen.method, seen.modules) == ("sd1", "sd1", "adapter-layers", 1)


def test_what_needs_a_change_of_weights_is_refused_with_the_reason(adapter, tmp_path):
    for refused in (
        lambda: proof.export(adapter, tmp_path / "a.safetensors"),
        lambda: write(adapter, tmp_path / "b.safetensors", "diffusers"),
        lambda: resize.to_rank(adapter, 1),
    ):
        with pytest.raises(AdapterError, match="a set of adapter layers, which cannot be"):
            refused()
    assert not list(tmp_path.iterdir())


def test_a_damaged_one_is_refused(adapter, tmp_path):
    one = adapter.outputs[PATH]
    path = write(
        Adapter({}, adapter.metadata, outputs={PATH: Bottleneck(one.down, one.down_bias, one.up[:-1], one.up_bias)}),
        tmp_path / "bad.safetensors",
    )
    with pytest.raises(AdapterError, match="does not fit together"):
        read(path)
