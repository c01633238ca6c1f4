"""Adapters of literal and golden shapes. A module's weight is drawn from its name, so that a swap of two is seen."""

from __future__ import annotations

import zlib
from pathlib import Path

import torch

from lora_studio.adapters import Adapter, Factors

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FAMILIES = {"sd1": "kohya-keys-sd15.tsv", "sd2": "kohya-keys-sd2.tsv", "sdxl": "kohya-keys-sdxl.tsv"}


def golden(family: str) -> dict[str, tuple[int, ...]]:
    """Every key that the reference trainer writes at rank 4, with its shape."""
    lines = (GOLDEN / FAMILIES[family]).read_text().splitlines()
    return {
        key: () if shape == "scalar" else tuple(map(int, shape.split("x")))
        for key, shape in (line.split("\t") for line in lines)
    }


def drawn(name: str, shape: tuple[int, ...], dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))).to(dtype)


def factors(
    path: str,
    out: int,
    into: int,
    rank: int = 4,
    alpha: float | None = None,
    kernel: int = 0,
    dora: bool = False,
    dtype=torch.float32,
) -> Factors:
    down = (rank, into, kernel, kernel) if kernel else (rank, into)
    up = (out, rank, 1, 1) if kernel else (out, rank)
    magnitude = drawn(path + "m", (out,), dtype).abs() + 0.5 if dora else None
    return Factors(
        drawn(path + "d", down, dtype), drawn(path + "u", up, dtype), float(rank if alpha is None else alpha), magnitude
    )


BLOCK = "unet.down_blocks.0.attentions.0.transformer_blocks.0"


def small() -> Adapter:
    """A starter-shaped adapter with every kind of module: attention, feed-forward, convolution, text encoder; ranks and
    alphas differ.
    """
    shapes = {
        f"{BLOCK}.attn1.to_q": (64, 64, 4, 2.0, 0),
        f"{BLOCK}.attn2.to_k": (64, 48, 8, 8.0, 0),
        f"{BLOCK}.attn2.to_out.0": (64, 64, 4, 0.5, 0),
        f"{BLOCK}.ff.net.0.proj": (512, 64, 4, 4.0, 0),
        "unet.down_blocks.0.resnets.1.conv1": (64, 64, 4, 3.0, 3),
        "unet.mid_block.attentions.0.proj_in": (96, 96, 2, 1.0, 1),
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (48, 48, 4, 4.0, 0),
    }
    return Adapter({path: factors(path, *shape) for path, shape in shapes.items()}, {"modelspec.title": "Small"})


def assert_same(one: Adapter, other: Adapter) -> None:
    assert set(one.factors) == set(other.factors)
    for path, mine in one.factors.items():
        theirs = other.factors[path]
        assert mine.alpha == theirs.alpha, path
        assert torch.equal(mine.down, theirs.down) and torch.equal(mine.up, theirs.up), path
        assert (mine.magnitude is None) == (theirs.magnitude is None), path
        assert mine.magnitude is None or torch.equal(mine.magnitude, theirs.magnitude), path


Q = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TE = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
