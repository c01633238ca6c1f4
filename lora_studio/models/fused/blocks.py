"""Diffusers' UNet blocks with the least work between their matrix products: the same outputs, and the same gradients of
activations and adapters.

``enable`` swaps the classes of a UNet's blocks for subclasses of them with another ``forward``; names, weights and
everything else stay. A block that is not of the plain kind that Stable Diffusion 1, 2 and XL are built of keeps its
own. Adapters, hooks and gradient checkpointing may be added and removed meanwhile.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from lora_studio.models.fused import ops
from lora_studio.models.fused.lora import hooked, linear, linears


def enable(unet: UNet2DConditionModel) -> None:
    """Fuses every block of ``unet`` that can be; may be called again."""
    for module in unet.modules():
        for kind in (FusedResnet, FusedTransformer, FusedBlock):
            if type(module) is kind.__base__ and kind.fits(module):
                module.__class__ = kind
    last = getattr(unet, "conv_norm_out", None), getattr(unet, "conv_act", None)  # a transformer has neither
    if tuple(map(type, last)) == (nn.GroupNorm, nn.SiLU):
        unet.conv_norm_out.__class__, unet.conv_act.__class__ = FusedLastNorm, FusedLastActivation


def disable(unet: UNet2DConditionModel) -> None:
    """Gives every block its own ``forward`` back."""
    for module in unet.modules():
        if isinstance(module, FusedResnet | FusedTransformer | FusedBlock | FusedLastNorm | FusedLastActivation):
            own: Any = type(module).__base__
            module.__class__ = own


class FusedResnet(ResnetBlock2D):
    """A convolution's bias is added by the operation that follows it."""

    time_emb_proj: Any  # there is one, as ``fits`` says

    @staticmethod
    def fits(block: Any) -> bool:
        return (
            block.time_embedding_norm == "default"
            and block.upsample is None
            and block.downsample is None
            and block.dropout.p == 0
            and type(block.nonlinearity) is nn.SiLU
            and not block.skip_time_act
            and block.output_scale_factor == 1
            and block.time_emb_proj is not None
            and _affine(block.norm1)
            and _affine(block.norm2)
        )

    def forward(self, input_tensor: Tensor, temb: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or any(hooked(part) for part in (self.norm1, self.norm2, self.nonlinearity, self.dropout)):
            return super().forward(input_tensor, temb, *args, **kwargs)
        hidden, past = ops.group_norm(self.norm1, input_tensor, silu=True)
        hidden, bias = _convolved(self.conv1, hidden)
        hidden, _ = ops.group_norm(self.norm2, hidden, silu=True, shift=self.time_emb_proj(F.silu(temb)), bias=bias)
        hidden, bias = _convolved(self.conv2, hidden)
        return ops.add(past if self.conv_shortcut is None else _pointwise(self.conv_shortcut, past), hidden, bias)


class FusedTransformer(Transformer2DModel):
    """An image and its rows of pixels are the same memory, so that nothing is copied between them."""

    _gradient_checkpointing_func: Any  # not None where ``gradient_checkpointing`` is set

    @staticmethod
    def fits(model: Any) -> bool:
        return model.is_input_continuous and _affine(model.norm)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        timestep: torch.LongTensor | None = None,
        added_cond_kwargs: Any = None,
        class_labels: torch.LongTensor | None = None,
        cross_attention_kwargs: Any = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        unusual: Any = (
            timestep,
            added_cond_kwargs,
            class_labels,
            cross_attention_kwargs,
            attention_mask,
            encoder_attention_mask,
        )
        if any(one is not None for one in unusual) or hooked(self.norm):
            return super().forward(hidden_states, encoder_hidden_states, *unusual, return_dict=return_dict)
        n, _, height, width = hidden_states.shape
        hidden, past = ops.group_norm(self.norm, hidden_states)
        rows = (
            linear(self.proj_in, _rows(hidden))
            if self.use_linear_projection
            else _rows(_pointwise(self.proj_in, hidden))
        )
        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                rows = self._gradient_checkpointing_func(block, rows, None, encoder_hidden_states)
            else:
                rows = block(rows, encoder_hidden_states=encoder_hidden_states)
        if self.use_linear_projection:
            hidden = past + _picture(linear(self.proj_out, rows), height, width)
        else:
            hidden = past + _pointwise(self.proj_out, _picture(rows, height, width))
        return Transformer2DModelOutput(sample=hidden) if return_dict else (hidden,)


class FusedBlock(BasicTransformerBlock):
    """Each residual sum is computed together with the norm that follows it."""

    norm1: Any  # layer norms, as ``fits`` says
    norm2: Any
    norm3: Any

    @staticmethod
    def fits(block: Any) -> bool:
        norms = (block.norm1, block.norm2, block.norm3)
        return (
            block.norm_type == "layer_norm"
            and block.attn2 is not None
            and not block.only_cross_attention
            and block.pos_embed is None
            and not hasattr(block, "fuser")
            and all(type(norm) is nn.LayerNorm and norm.bias is not None for norm in norms)
        )

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        timestep: torch.LongTensor | None = None,
        cross_attention_kwargs: Any = None,
        class_labels: torch.LongTensor | None = None,
        added_cond_kwargs: Any = None,
    ) -> Tensor:
        unusual: Any = (
            attention_mask,
            encoder_attention_mask,
            timestep,
            cross_attention_kwargs,
            class_labels,
            added_cond_kwargs,
            self._chunk_size,
        )
        if any(one is not None for one in unusual) or any(
            hooked(norm) for norm in (self.norm1, self.norm2, self.norm3)
        ):
            return super().forward(
                hidden_states,
                attention_mask,
                encoder_hidden_states,
                encoder_attention_mask,
                timestep,
                cross_attention_kwargs,
                class_labels,
                added_cond_kwargs,
            )
        normal, total = ops.layer_norm(self.norm1, hidden_states)
        normal, total = ops.layer_norm(self.norm2, total, _attended(self.attn1, normal, None))
        normal, total = ops.layer_norm(self.norm3, total, _attended(self.attn2, normal, encoder_hidden_states))
        return total + _fed_forward(self.ff, normal)


class FusedLastNorm(nn.GroupNorm):
    """The UNet's last norm, with the SiLU that follows it."""

    def forward(self, input: Tensor) -> Tensor:
        return ops.group_norm(self, input, silu=True)[0]


class FusedLastActivation(nn.SiLU):
    """The norm before it computes it."""

    def forward(self, input: Tensor) -> Tensor:
        return input


def _affine(norm: Any) -> bool:
    return type(norm) is nn.GroupNorm and norm.affine


def _convolved(conv: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """``conv(x)``, and the bias that is still to be added to it; None if it has been."""
    if conv.bias is None or not _plain(conv, x):
        return conv(x), None
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups), conv.bias


def _pointwise(conv: Any, x: Tensor) -> Tensor:
    """``conv(x)`` of a 1×1 convolution: on rows of pixels it is a linear layer."""
    if not _plain(conv, x):
        return conv(x)
    return _picture(F.linear(_rows(x), conv.weight.flatten(1), conv.bias), *x.shape[2:])


def _plain(conv: Any, x: Tensor) -> bool:
    """Whether ``conv`` is nothing but a frozen convolution, and Triton adds its bias: elsewhere the convolution does
    that at no cost.
    """
    return (
        type(conv) is nn.Conv2d
        and conv.padding_mode == "zeros"
        and not hooked(conv)
        and ops.fused(x, conv.weight, conv.bias)
    )


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H·W, C); the same memory if channels are last in it."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1])


def _picture(rows: Tensor, height: int, width: int) -> Tensor:
    """(N, H·W, C) -> (N, C, H, W), the same memory, with channels last."""
    return rows.view(len(rows), height, width, rows.shape[-1]).permute(0, 3, 1, 2)


def _attended(attention: Any, x: Tensor, text: Tensor | None) -> Tensor:
    """``attention(x, text)``, without the residual: x (N, L, C), text (N, T, D) or None for x itself."""
    if not _straight(attention):
        return attention(x, encoder_hidden_states=text)
    if text is None:
        query, key, value = linears((attention.to_q, attention.to_k, attention.to_v), x)
    else:
        query, (key, value) = linear(attention.to_q, x), linears((attention.to_k, attention.to_v), text)
    query, key, value = (one.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for one in (query, key, value))
    hidden = F.scaled_dot_product_attention(query, key, value)
    return linear(attention.to_out[0], hidden.transpose(1, 2).flatten(2))


def _straight(attention: Any) -> bool:
    """Whether it is nothing but q, k, v, their attention and a projection."""
    parts = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k", "added_kv_proj_dim")
    return (
        type(attention.processor) is AttnProcessor2_0
        and all(getattr(attention, part) is None for part in parts)
        and not hooked(attention)
        and not attention.residual_connection
        and attention.rescale_output_factor == 1
        and not attention.fused_projections
        and (attention.to_out[1].p == 0 or not attention.training)
    )


def _fed_forward(feed: Any, x: Tensor) -> Tensor:
    if (
        hooked(feed)
        or len(feed.net) != 3
        or type(feed.net[0]) is not GEGLU
        or hooked(feed.net[0])
        or feed.net[1].p > 0
        and feed.training
    ):
        return feed(x)
    return linear(feed.net[2], ops.geglu(linear(feed.net[0].proj, x)))
