"""What a step holds in memory, as ground truth for the estimate: on the meta device, where the exact shapes cost
nothing and every tensor is counted as it comes and goes.

What a card does is imitated there: Triton's kernels (``models.fused``) keep what they keep; attention keeps its
queries, keys, values, answer and one sum for each query, as torch's own flash kernels do; and under autocast norms get
float32 and products the base model's format.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora_studio.adapters import block_names
from lora_studio.adapters.adapter import Adapter, Factors
from lora_studio.config.settings import Settings
from lora_studio.families import registry as families
from lora_studio.methods import registry
from lora_studio.methods.pissa import Pissa
from lora_studio.models import fused, gradient_checkpointing, inject, modules
from lora_studio.models.fused import ops, triton_support
from lora_studio.models.overlay import AdapterOverlay
from lora_studio.models.parts import build
from lora_studio.models.shapes import Shapes

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _sums(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=torch.float32)


KERNELS = SimpleNamespace(
    group_norm=lambda x, shift, bias, gamma, beta, groups, eps, silu: (
        torch.empty_like(x),
        _sums(x, len(x), groups),
        _sums(x, len(x), groups),
    ),
    group_norm_gradient=lambda dy, more, x, *rest: torch.empty_like(x),
    layer_norm=lambda a, b, gamma, beta, eps: (
        a if b is None else torch.empty_like(a),
        torch.empty_like(a),
        _sums(a, *a.shape[:-1]),
        _sums(a, *a.shape[:-1]),
    ),
    layer_norm_gradient=lambda dy, more, x, gamma, mean, rstd: torch.empty_like(x),
    geglu=lambda projection: projection.new_empty((*projection.shape[:-1], projection.shape[-1] // 2)),
    geglu_gradient=lambda dy, projection: torch.empty_like(projection),
    add=lambda a, b, bias: torch.empty_like(a),
)
"""``fused.kernels`` without the arithmetic."""


@contextlib.contextmanager
def card() -> Iterator[None]:
    """Within it ``models.fused`` takes the meta device for a card where Triton works."""

    def fused(x: Tensor, *weights: Tensor | None) -> bool:
        return all(one is None or one.dtype == x.dtype and not one.requires_grad for one in weights)

    with mock.patch.object(triton_support, "kernels", lambda: KERNELS), mock.patch.object(ops, "fused", fused):
        yield


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, tokens, width = q.shape
        answer = q.new_empty(batch, tokens, heads, width).transpose(1, 2)
        ctx.save_for_backward(q, k, v, answer, _sums(q, batch, heads, tokens))
        return answer

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, ...]:
        q, k, v, _, _ = ctx.saved_tensors
        gathered = _sums(q, *q.shape)  # flash attention adds the queries' gradient up in float32
        return torch.empty_like(gathered, dtype=q.dtype), torch.empty_like(k), torch.empty_like(v)


@contextlib.contextmanager
def arithmetic(low: torch.dtype | None) -> Iterator[None]:
    """Within it torch computes as CUDA does, with ``low`` under ``torch.autocast`` to that format. Functions are
    replaced one by one: a mode would not reach what is computed again.
    """
    casts: dict[int, Tensor] = {}

    def down(x: Any) -> Any:
        if low is None or not isinstance(x, Tensor) or not x.is_floating_point() or x.dtype == low:
            return x
        if x.is_leaf and x.requires_grad:  # autocast casts a weight once
            return casts.setdefault(id(x), x.to(low))
        return x.to(low)

    def up(x: Any) -> Any:
        return x.float() if low and isinstance(x, Tensor) and x.is_floating_point() else x

    def cast(function, change):
        return lambda *args, **kwargs: function(
            *map(change, args), **{key: change(value) for key, value in kwargs.items()}
        )

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return (
            torch.native_dropout(x, p, True)[0] if training and p > 0 else x
        )  # keeps a byte an element; the CPU's own keeps four

    with contextlib.ExitStack() as stack:
        changed = {
            "linear": cast(F.linear, down),
            "conv2d": cast(F.conv2d, down),
            "group_norm": cast(F.group_norm, up),
            "layer_norm": cast(F.layer_norm, up),
            "dropout": dropout,
            "scaled_dot_product_attention": lambda query, key, value, **rest: _Attention.apply(
                down(query), down(key), down(value)
            ),
        }
        for name, function in changed.items():
            stack.enter_context(mock.patch.object(F, name, function))
        stack.enter_context(mock.patch.object(torch, "is_autocast_enabled", lambda *device: low is not None))
        yield


class Ledger(TorchDispatchMode):
    """Counts the bytes of what operations make, for as long as it lives."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {
            tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if (
                isinstance(tensor, Tensor)
                and (key := tensor.untyped_storage()._cdata) not in given
                and key not in self._known
            ):
                self._enter(tensor.untyped_storage(), key)
        return result

    def _enter(self, storage: torch.UntypedStorage, key: int) -> None:
        self._known.add(key)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._leave, key, storage.nbytes())

    def _leave(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def unet(settings: Settings, shapes: Shapes, precision: str) -> nn.Module:
    """The exact UNet with its adapter under training, on the meta device; a LoRA's factors in the base model's format,
    with gradients that are there from the start.
    """
    from peft.tuners.lora import LoraLayer

    made = build(families.named(shapes.family), "unet", shapes.unet, "tests").requires_grad_(False)
    for parameter in made.parameters():
        parameter.data = parameter.data.to(DTYPES[precision])
    made.to(memory_format=torch.channels_last)
    fused.enable(made)
    method = registry.get(settings.adapter.method)
    family = families.named(shapes.family)
    adapter = settings.adapter.of_family(family)
    found = modules.targets(made, family.targets[adapter.targets])
    paths = {name: modules.path_of("unet", name) for name in found}
    held = [name for name, path in paths.items() if block_names.within(adapter.blocks, path) and method.takes(path)]
    with torch.device("meta"):
        inject.put_layers(made, "unet", held, adapter)
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(DTYPES[precision] if method.low_precision else torch.float32)
            parameter.grad = torch.empty_like(parameter)
    if isinstance(method, Pissa):
        layers = {
            modules.path_of("unet", name): layer for name, layer in made.named_modules() if isinstance(layer, LoraLayer)
        }
        start = {
            path: Factors(
                layer.lora_A["style"].weight.detach(), layer.lora_B["style"].weight.detach(), settings.adapter.alpha
            )
            for path, layer in layers.items()
        }
        made.start = AdapterOverlay({"unet": made}, [(Adapter(start), -1.0)], shapes.family, torch.float32)
    gradient_checkpointing.enable(made.train(), settings.machine.checkpointing, random=False)
    return made


def measure(settings: Settings, shapes: Shapes, precision: str, triton: bool = True) -> tuple[int, int, nn.Module]:
    """Bytes that one batch keeps for the backward pass, weights left out and every storage counted once; the most that
    the forward and the backward pass hold, weights left out; and the UNet.
    """
    made, dtype = unet(settings, shapes, precision), DTYPES[precision]
    side, batch = (settings.dataset.resolution or shapes.resolution) // shapes.scale, settings.optimizer.batch
    subtracted = [one.increment for one in made.start._changed] if hasattr(made, "start") else ()
    frozen = [tensor for one in subtracted for tensor in (one.down, one.up, one.scale)]
    own, held = {tensor.untyped_storage()._cdata for tensor in (*made.parameters(), *frozen)}, {}

    def hold(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own and key not in held:
            held[key] = tensor.untyped_storage().nbytes()
            weakref.finalize(tensor.untyped_storage(), held.pop, key, None)
        return tensor

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    more = {}
    if shapes.unet.get("addition_embed_type"):
        pooled = shapes.unet["projection_class_embeddings_input_dim"] - 6 * shapes.unet["addition_time_embed_dim"]
        more = {
            "added_cond_kwargs": {"text_embeds": empty(batch, pooled), "time_ids": torch.empty(batch, 6, device="meta")}
        }
    autocast = None if registry.get(settings.adapter.method).low_precision or dtype == torch.float32 else dtype
    ledger = Ledger()
    with card() if triton else contextlib.nullcontext(), arithmetic(autocast), ledger:
        noisy, text = empty(batch, 4, side, side), empty(batch, 77, shapes.unet["cross_attention_dim"])
        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            loss = made(noisy, torch.empty(batch, dtype=torch.int64, device="meta"), text, **more).sample.float().mean()
        kept = sum(held.values())
        loss.backward()
    return kept, ledger.most, made
