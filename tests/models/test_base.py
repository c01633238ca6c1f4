"""A base model's checksum: the name under which what its UNet draws is kept. That another model has another one:
``test_folders``, ``test_quantize``.
"""

import pytest
import torch

from lora_studio.models import inject
from lora_studio.models.base import _INTEGERS, _sum
from tests.models.test_inject import learn, settings


def checksum(base) -> str:
    """As it is now."""
    base.__dict__.pop("checksum", None)
    return base.checksum


@pytest.mark.parametrize(
    "method",
    [{"targets": "attention+ff+conv", "dropout": 0.5, "train_text": True}, {"method": "dora"}, {"method": "pissa"}],
    ids=str,
)
def test_an_adapter_leaves_the_checksum_as_it_is(base, method):
    """Or every run would draw the base's pictures anew; peft renames the weights that it sits on."""
    before = checksum(base)
    inject.add_adapter(base, settings(**method).adapter, seed=0)
    learn(base)
    assert checksum(base) == before


def test_the_least_change_of_one_weight_changes_the_checksum(base):
    """In a layer with channels last, in a matrix, in a vector; a picture of another model would be taken for this
    one's.
    """
    before = checksum(base)
    for name in ("conv_in.weight", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight", "conv_out.bias"):
        weight = base.unet.get_parameter(name).detach()
        last = tuple(size - 1 for size in weight.shape)
        kept = weight[last].clone()
        weight[last] = torch.nextafter(kept, torch.tensor(9.0))
        assert checksum(base) != before
        weight[last] = kept
    assert checksum(base) == before


def test_weights_that_change_places_change_the_checksum(base):
    to_q, to_k = (
        base.unet.get_parameter(f"mid_block.attentions.0.transformer_blocks.0.attn1.{name}.weight")
        for name in ("to_q", "to_k")
    )
    before = checksum(base)
    to_q.data, to_k.data = to_k.data, to_q.data
    assert checksum(base) != before
    to_q.data, to_k.data = to_k.data, to_q.data
    assert checksum(base) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int8])
def test_every_format_and_layout_is_summed_exactly(dtype):
    """Channels last need no copy in another order; numbers that do not fill words of 64 bits are added one by one."""
    images = torch.arange(2 * 8 * 3 * 3).to(dtype).view(2, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    words = images.permute(0, 2, 3, 1).contiguous().view(torch.int64).flatten().tolist()
    assert (_sum(images).item() - sum(words)) % 2**64 == 0
    few = torch.tensor([1, 2, 3]).to(dtype)
    one_by_one = few.view(_INTEGERS[few.itemsize]).tolist()
    assert _sum(few).item() == sum(one_by_one) and _sum(few[0]).item() == one_by_one[0]
    assert _sum(torch.ones(9, dtype=dtype)[1:]).item() == 8 * one_by_one[0], "it begins within a word"
