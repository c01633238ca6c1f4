"""OFT: orthogonal blocks that rotate a layer's outputs (Qiu et al. 2023, section 3.3), W' = R W.

R is block-diagonal. Its blocks are Cayley transforms (I + Q)(I − Q)⁻¹ of skew matrices Q = B − Bᵀ, B being what a file
holds (``oft_blocks``; kohya and LyCORIS). Block k mixes the outputs k·n to (k + 1)·n − 1, as a row that is multiplied
by the block: y'ₘ = Σₙ Rₖ[n, m] yₙ.

A file's ``alpha`` bounds ‖Q‖ over all blocks: by alpha · outputs for kohya, LyCORIS and A1111, by alpha for ComfyUI.
0 is no bound for all but A1111. So that all read the same, the bound is multiplied into B when a file is read, and
files get an alpha that none of them ever reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lora_studio.adapters.kinds import OFT
from lora_studio.adapters.output_change import OutputChange, Pass
from lora_studio.language import tr

UNBOUNDED = 1e6
"""The alpha that is written."""


@dataclass(frozen=True, eq=False)
class OftChange(OutputChange):
    """The rotation of one module."""

    kind = OFT

    blocks: Tensor
    """B (K, n, n), K·n being the module's outputs."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.blocks.shape[0] * self.blocks.shape[1], 0)

    def tensors(self) -> Mapping[str, Tensor]:
        return {"oft_blocks": self.blocks, "alpha": torch.tensor(UNBOUNDED)}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> OftChange:
        blocks = tensors["oft_blocks"]
        if blocks.dim() != 3 or blocks.shape[1] != blocks.shape[2]:
            shape = str(tuple(blocks.shape))
            if blocks.dim() == 4:
                raise ValueError(
                    tr("its blocks have the shape {shape}, a BOFT's, which the studio does not read", shape=shape)
                )
            raise ValueError(tr("its blocks have the shape {shape}, no square blocks", shape=shape))
        bound = float(tensors["alpha"].reshape(())) * blocks.shape[0] * blocks.shape[1] if "alpha" in tensors else 0.0
        size = float((blocks.float() - blocks.float().mT).norm())
        return cls((blocks.float() * (bound / size)).to(blocks.dtype) if 0 < bound < size else blocks)

    @cached_property
    def turn(self) -> Tensor:
        """R − I (K, n, n) float32."""
        return rotation(self.blocks.float()) - torch.eye(self.blocks.shape[1], device=self.blocks.device)

    def strength(self, weights: Tensor) -> Tensor:
        """Squared: ComfyUI multiplies by the strength twice (``OFTAdapter.calculate_weight`` in
        ``comfy/weight_adapter/oft.py``).
        """
        return weights.square()

    def placed(self, device: torch.device, dtype: torch.dtype) -> OftChange:
        """The rotation is computed in float32, once."""
        made = OftChange(self.blocks.to(device))
        made.__dict__["turn"] = self.turn.to(device, dtype)
        return made

    def apply(self, given: Pass) -> Tensor:
        return given.total + given.weighed(turned(given.product(), self.turn.to(given.bare.dtype)))

    def change(self, weight: Tensor) -> Tensor:
        turn = self.turn.to(weight.device, torch.float32)
        parts = weight.float().reshape(*turn.shape[:2], -1)
        return torch.einsum("knm,kni->kmi", turn, parts).reshape(weight.shape)


def rotation(blocks: Tensor) -> Tensor:
    """R (K, n, n) of B (K, n, n): both factors of the Cayley transform commute, so that it is one solution."""
    skew = blocks - blocks.mT
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    return torch.linalg.solve_ex(eye - skew, eye + skew)[0]


def turned(y: Tensor, blocks: Tensor) -> Tensor:
    """y (…, K·n), each of its K parts as a row multiplied by its block (K, n, n)."""
    parts = y.unflatten(-1, blocks.shape[:2]).unsqueeze(-2)
    return (parts @ blocks).squeeze(-2).flatten(-2)
