"""Triton's kernels compute what torch does, forward and backward, in every format and odd size; without them
the reason is given.
"""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lora_studio import models
from lora_studio.models import fused, inject
from lora_studio.models.fused import ops, triton_support
from tests.models import tiny
from tests.models.test_inject import learn, settings

GPU = pytest.mark.skipif(triton_support.kernels() is None, reason=f"needs Triton: {triton_support.reason()}")
DIGITS = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""Largest error, as a share of the largest value."""
PICTURES = [
    (4, 320, 64, 64),
    (2, 640, 33, 31),
    (1, 960, 5, 7),
    (2, 1280, 8, 8),
    (2, 1920, 17, 9),
    (1, 2560, 16, 16),
    (1, 96, 1, 1),
]


@pytest.fixture(params=DIGITS, ids=str)
def kind(request):
    return request.param


def made(kind, *shape, offset=0.0):
    tensor = (torch.randn(*shape, device="cuda") + offset).to(kind)
    return tensor.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else tensor


def frozen(module: nn.Module, kind) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.to("cuda", kind).requires_grad_(False)


def assert_same(compute, reference, kind, *inputs) -> None:
    """``compute`` of ``inputs`` and its gradients are those of ``reference`` in float64, for both of its results or the
    one.
    """
    torch.manual_seed(0)
    results, gradients = [], []
    for function, format in ((compute, kind), (reference, torch.float64)):
        given = [one.detach().to(format).requires_grad_() for one in inputs]
        found = function(*given)
        found = found if isinstance(found, tuple) else (found,)
        slopes = [
            torch.randn(one.shape, generator=torch.Generator().manual_seed(number)).to("cuda", kind).to(format)
            for number, one in enumerate(found)
        ]
        results.append(found)
        gradients.append(torch.autograd.grad(found, given, slopes))
    for one, other in zip(results[0] + gradients[0], results[1] + gradients[1], strict=True):
        assert one.dtype == kind and (one - other).abs().max() <= DIGITS[kind] * other.abs().max()


@GPU
@pytest.mark.parametrize("shape", PICTURES, ids=str)
@pytest.mark.parametrize("silu", [True, False])
def test_group_norm(kind, shape, silu):
    """A mean of many deviations must not cost digits."""
    norm = frozen(nn.GroupNorm(32, shape[1]), kind)
    double = [one.double() for one in norm.parameters()]

    def reference(x):
        y = F.group_norm(x, 32, *double)
        return F.silu(y) if silu else y, x

    assert_same(lambda x: ops.group_norm(norm, x, silu), reference, kind, made(kind, *shape, offset=4.0))


@GPU
@pytest.mark.parametrize("shape", PICTURES[1:4], ids=str)
def test_group_norm_of_what_is_shifted_first(kind, shape):
    """By a time embedding, which may be trained, and a convolution's bias."""
    norm, bias = frozen(nn.GroupNorm(32, shape[1]), kind), made(kind, shape[1])
    double = [one.double() for one in norm.parameters()]
    assert_same(
        lambda x, t: ops.group_norm(norm, x, True, t, bias)[0],
        lambda x, t: F.silu(F.group_norm(x + t[:, :, None, None] + bias.double()[:, None, None], 32, *double)),
        kind,
        made(kind, *shape),
        made(kind, *shape[:2]),
    )


@GPU
@pytest.mark.parametrize("shape", [(2, 1001, 320), (1, 77, 640), (3, 5, 1280), (1, 1, 36)], ids=str)
def test_layer_norm_of_a_sum(kind, shape):
    norm = frozen(nn.LayerNorm(shape[-1]), kind)
    double = [one.double() for one in norm.parameters()]

    def reference(a, b=0.0):
        return F.layer_norm(a + b, shape[-1:], *double), a + b

    assert_same(lambda a: ops.layer_norm(norm, a), reference, kind, made(kind, *shape))
    assert_same(lambda a, b: ops.layer_norm(norm, a, b), reference, kind, made(kind, *shape), made(kind, *shape))


@GPU
@pytest.mark.parametrize("shape", [(2, 1001, 2560), (1, 77, 10240), (3, 5, 36)], ids=str)
def test_geglu(kind, shape):
    assert_same(ops.geglu, lambda x: x.chunk(2, -1)[0] * F.gelu(x.chunk(2, -1)[1]), kind, 2 * made(kind, *shape))


@GPU
def test_sum_with_a_bias(kind):
    bias = made(kind, 100)
    assert_same(
        lambda a, b: ops.add(a, b, bias),
        lambda a, b: a + b + bias.double()[:, None, None],
        kind,
        made(kind, 2, 100, 7, 9),
        made(kind, 2, 100, 7, 9),
    )


def apart(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@GPU
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_fused_step_on_the_card_is_the_same(tiny_folder, family):
    """In float32, and recorded as a CUDA graph: nothing in it waits for the card. A tiny model's norms over single
    pixels make much of any rounding: so it counts how far diffusers' own blocks are from the same in float64."""
    base = models.load(str(tiny_folder(family)), "cuda")
    inject.add_adapter(base, settings(targets="attention+ff+conv").adapter, seed=0)
    learn(base)
    torch.manual_seed(0)
    noisy, when, text = (
        torch.randn(2, 4, 16, 16, device="cuda"),
        torch.tensor([5, 900], device="cuda"),
        base.encode_text(["a cat", "a dog"]),
    )
    sizes = base.whole(noisy)
    parameters = list(inject.trainable(base).values())

    def step():
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            answer = base.predict(noisy, when, text, sizes)
            return answer.detach(), *torch.autograd.grad(
                answer.square().mean(), parameters
            )  # no autograd graph may be alive during a capture

    found = step()
    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        step()
    torch.cuda.current_stream().wait_stream(aside)
    with torch.cuda.graph(graph):
        recorded = step()
    graph.replay()
    fused.disable(base.unet)
    plain = step()
    base.unet.double()
    base.dtype = torch.float64
    true = step()
    for one, again, other, exact in zip(found, recorded, plain, true, strict=True):
        allowed = max(1e-4, 8 * apart(other, exact))
        assert apart(one, exact) <= allowed and apart(again, exact) <= allowed


@pytest.mark.parametrize(("there", "why"), [(False, "no GPU"), (True, "cannot compile")])
def test_without_triton_torch_serves(monkeypatch, there, why):
    """Neither a machine without a card nor one without a compiler may fail for it."""

    def broken(*_):
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(fused, "kernels", SimpleNamespace(add=broken), raising=False)
    found, reason = triton_support._probe.__wrapped__()
    assert found is None and why in reason
