"""Beginning from a finished adapter: the model answers as with that adapter, and all of the new one can learn."""

import pytest
import torch

from lora_studio.adapters import Adapter, Factors, dora
from lora_studio.config.settings import Settings
from lora_studio.models import inject, warm_start


def given(base, rank=2, targets="attention"):
    """A trained adapter of rank 2 and scale 4."""
    inject.add_adapter(base, Settings(rank=rank, alpha=4 * rank, targets=targets).adapter, seed=5)
    source = torch.Generator().manual_seed(3)
    factors = {
        path: Factors(one.down, 0.1 * torch.randn(one.up.shape, generator=source), one.alpha)
        for path, one in inject.read_adapter(base).factors.items()
    }
    inject.remove(base)
    return Adapter(factors)


def change(base, adapter):
    return {
        path: dora.change(one, inject.weight(base, path)) if one.magnitude is not None else one.delta()
        for path, one in adapter.factors.items()
    }


@pytest.mark.parametrize(
    "settings",
    [
        Settings(rank=2, alpha=2),
        Settings(rank=5, alpha=1),
        Settings(rank=4, alpha=8, rslora=True, init="kaiming"),
        Settings(rank=3, method="dora", alpha=3),
    ],
)
def test_the_first_answer_is_the_given_adapters(base, settings):
    adapter = given(base)
    wanted = change(base, adapter)
    inject.add_adapter(base, settings.adapter, seed=1)
    assert warm_start.begin_from(base, adapter) == len(wanted)
    found = change(base, inject.read_adapter(base))
    assert all(torch.allclose(found[path].reshape(delta.shape), delta, atol=2e-6) for path, delta in wanted.items())
    ups = [parameter for name, parameter in inject.trainable(base).items() if "lora_A" in name]
    assert all((parameter.flatten(1).norm(dim=1) > 0).all() for parameter in ups), (
        "a row of zeros with a column of zeros would never learn"
    )


def test_a_lower_rank_begins_as_near_as_it_comes(base):
    adapter = given(base, rank=4)
    inject.add_adapter(base, Settings(rank=2, alpha=2).adapter, seed=1)
    warm_start.begin_from(base, adapter)
    for path, one in inject.read_adapter(base).factors.items():
        whole = adapter.factors[path].delta().flatten(1)
        best = torch.linalg.svdvals(whole)[2:].norm()
        assert torch.allclose((one.delta().flatten(1) - whole).norm(), best, rtol=1e-3)


def test_modules_without_a_place_are_counted_and_new_ones_begin_at_nothing(base):
    adapter = given(base, targets="attention")
    inject.add_adapter(base, Settings(rank=2, targets="qv").adapter, seed=1)
    assert warm_start.begin_from(base, adapter) == len(adapter.factors) // 2
    inject.remove(base)
    inject.add_adapter(base, Settings(rank=2, targets="attention+ff").adapter, seed=1)
    assert warm_start.begin_from(base, adapter) == len(adapter.factors)
    fresh = [one for path, one in inject.read_adapter(base).factors.items() if path not in adapter.factors]
    assert fresh and all(not one.delta().any() for one in fresh)
