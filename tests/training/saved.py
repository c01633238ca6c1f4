"""The bytes that autograd saves for the way back, as ground truth for the estimate; on the meta device, where the exact shapes cost no memory.

What a card does under autocast with fused attention is imitated there: norms get float32, products the base model's format, and attention keeps its queries, keys, values,
answer and one sum for each query (torch's own flash kernels save just these).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lora_studio.models import modules, recompute
from lora_studio.models.parts import build
from lora_studio.models.shapes import Shapes
from lora_studio.settings import Settings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, tokens, width = q.shape
        answer = q.new_empty(batch, tokens, heads, width).transpose(1, 2)
        ctx.save_for_backward(q, k, v, answer, q.new_empty(batch, heads, tokens, dtype=torch.float32))
        return answer


class Card(TorchFunctionMode):
    """Computes as CUDA does under ``torch.autocast`` to ``dtype``."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.low = dtype, dtype != torch.float32
        self._casts: dict[int, Tensor] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*(self._down(one) for one in (*args, *kwargs.values())[:3]))
        if func is F.dropout and (share := args[1] if len(args) > 1 else kwargs["p"]) > 0:
            return torch.native_dropout(args[0], share, True)[0]  # keeps a byte an element; the CPU's own keeps four
        change = {F.linear: self._down, F.conv2d: self._down, torch.conv2d: self._down, F.group_norm: _up, F.layer_norm: _up}.get(func)
        if change and self.low:
            args, kwargs = tuple(map(change, args)), {key: change(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)

    def _down(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.dtype == self.dtype:
            return x
        if x.is_leaf and x.requires_grad:  # autocast casts a weight once
            return self._casts.setdefault(id(x), x.to(self.dtype))
        return x.to(self.dtype)


def _up(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.is_floating_point() else x


def unet(settings: Settings, shapes: Shapes, precision: str) -> nn.Module:
    """The exact UNet with its adapter under training, on the meta device."""
    from peft import LoraConfig, inject_adapter_in_model

    made = build("unet", shapes.unet, "tests").requires_grad_(False)
    for parameter in made.parameters():
        parameter.data = parameter.data.to(DTYPES[precision])
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, use_dora=settings.method == "dora", target_modules=modules.targets(made, settings.targets))
    with torch.device("meta"):
        inject_adapter_in_model(config, made, "style")
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    recompute.enable(made.train(), settings.checkpointing)
    return made


def saved(settings: Settings, shapes: Shapes, precision: str) -> tuple[int, nn.Module]:
    """Bytes saved by one batch's way forth, weights left out and every storage counted once; and the UNet."""
    made, dtype = unet(settings, shapes, precision), DTYPES[precision]
    side, batch = (settings.resolution or shapes.resolution) // shapes.scale, settings.batch
    own, held, kept = {parameter.untyped_storage()._cdata for parameter in made.parameters()}, {}, []

    def hold(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own and key not in held:
            held[key] = tensor.untyped_storage().nbytes()
            kept.append(tensor)  # so that no other storage gets its address
        return tensor

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    more = {}
    if shapes.unet.get("addition_embed_type"):
        pooled = shapes.unet["projection_class_embeddings_input_dim"] - 6 * shapes.unet["addition_time_embed_dim"]
        more = {"added_cond_kwargs": {"text_embeds": empty(batch, pooled), "time_ids": torch.empty(batch, 6, device="meta")}}
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor), Card(dtype):
        made(empty(batch, 4, side, side), torch.empty(batch, dtype=torch.int64, device="meta"), empty(batch, 77, shapes.unet["cross_attention_dim"]), **more)
    return sum(held.values()), made
