"""How each program reads an adapter file: its names, its formula for scale and alpha, its DoRA, LoHa, LoKr, OFT, (IA)³.

This is for the proof of exports. It follows the behaviour of those programs and shares no code with the writers:
another library opens the file, and the names are built independently, of the layers that the family's models have.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from lora_studio.families import registry
from lora_studio.language import tr


class Reader:
    """A file as one program reads it.

    Args:
        family: whose models' layers the program looks up.
        stem: the key under which the program looks up the module at a path.
        parts: how the keys of the down and the up factor end.
        magnitude: how the key of a DoRA's magnitude ends; empty if the program reads none.
    """

    def __init__(
        self, path: Path, family: str, stem: Callable[[str], str], parts: tuple[str, str], magnitude: str = ""
    ):
        with safe_open(str(path), framework="pt") as file:
            self.metadata: dict[str, str] = file.metadata() or {}
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}
        self.unread = set(self.tensors)
        self.layers = _layers(family)
        self.stems = {module: stem(module) for module in self.layers}
        self.parts, self.magnitude = parts, magnitude
        kinds = {tensor.dtype for tensor in self.tensors.values() if tensor.dim() and tensor.is_floating_point()}
        self.tolerance = max((2 * torch.finfo(kind).eps for kind in kinds), default=0.0) + 1e-5

    def take(self, key: str) -> Tensor | None:
        """The tensor ``key`` in float32, marked as read; None if the file has none."""
        self.unread.discard(key)
        found = self.tensors.get(key)
        return None if found is None else found.float()

    def scale(self, module: str, rank: int) -> float:
        """kohya's rule, also in ComfyUI and Forge: alpha / rank, and 1 if the file has no alpha."""
        alpha = self.take(self.stems[module] + ".alpha")
        return 1.0 if alpha is None else alpha.item() / rank

    def change(self, module: str, W: Tensor | None) -> Tensor | None:
        """The ΔW that the program applies to ``module``, float32; None if it does not find the module.

        Args:
            W: the module's weight in the base model, which a DoRA needs.
        """
        if (stem := self.stems.get(module)) is None or (product := self.product(module, stem)) is None:
            return None
        magnitude = self.take(f"{stem}.{self.magnitude}") if self.magnitude else None
        return product if magnitude is None else self.decomposed(product, magnitude, _needed(W, module))

    def product(self, module: str, stem: str) -> Tensor | None:
        """ΔW as the program multiplies the module's parts; None if it finds none that it knows."""
        down, up = (self.take(f"{stem}.{part}") for part in self.parts)
        if down is None or up is None or not self.loads(module, down):
            return None
        product = torch.mm(up.reshape(up.shape[0], -1), down.reshape(down.shape[0], -1)).reshape(
            up.shape[0], *down.shape[1:]
        )
        return product * self.scale(module, down.shape[0])

    def loads(self, module: str, down: Tensor) -> bool:
        """Whether the program accepts the factor's dimensions: peft and what builds on it makes a layer of them."""
        return down.dim() == len(self.layers[module])

    def decomposed(self, delta: Tensor, magnitude: Tensor, W: Tensor) -> Tensor:
        """peft's DoRA, m · (W + ΔV) / ‖W + ΔV‖ − W with the norm over each output's weights.

        Args:
            delta: ΔV, the product of the factors.
            magnitude: m, (out,).
        """
        sums = (W + delta).reshape(W.shape[0], -1)
        return (W + delta) * (magnitude.reshape(-1) / sums.norm(dim=1)).reshape(-1, *[1] * (W.dim() - 1)) - W


class _Side(NamedTuple):
    product: Tensor
    rank: int
    """0 of a whole one."""


class _WebUi(Reader):
    """ComfyUI, Forge and A1111: they read kohya's and LyCORIS' layouts; a DoRA's m is divided by the norm of W."""

    def __init__(self, path: Path, family: str):
        super().__init__(
            path,
            family,
            lambda module: _trainer_name(module, family),
            ("lora_down.weight", "lora_up.weight"),
            "dora_scale",
        )

    def loads(self, module: str, down: Tensor) -> bool:
        return True  # the product is reshaped to the layer's weight

    def product(self, module: str, stem: str) -> Tensor | None:
        for found in (super().product, self._hadamard, self._kronecker):
            if (product := found(module, stem)) is not None:
                return product
        return self.take(f"{stem}.diff")

    def shaped(self, module: str, product: Tensor) -> Tensor:
        """(out, in·kh·kw) in the shape of the layer's weight."""
        return product.reshape(len(product), -1, *self.layers[module][2:]) if product.dim() == 2 else product

    def _hadamard(self, module: str, stem: str) -> Tensor | None:
        """(w1_a w1_b) ∘ (w2_a w2_b), with alpha / r; with Tucker cores t, each side is Σ t[i, j] w_a[i] w_b[j]."""
        first, second = (self.side(f"{stem}.hada_w{side}", f"{stem}.hada_t{side}") for side in "12")
        if first is None or second is None:
            return None
        return self.shaped(module, first.product * second.product) * self.scale(module, first.rank)

    def _kronecker(self, module: str, stem: str) -> Tensor | None:
        """w1 ⊗ w2, either whole or a product. alpha counts where one is a product, divided by the rank of the last."""
        first, second = self.side(f"{stem}.lokr_w1"), self.side(f"{stem}.lokr_w2", f"{stem}.lokr_t2")
        if first is None or second is None:
            return None
        w1, rank = first.product, second.rank or first.rank
        product = torch.kron(w1[:, :, None, None] if second.product.dim() == 4 else w1, second.product)
        scale = self.scale(module, rank or 1)
        return self.shaped(module, product) * (scale if rank else 1.0)

    def side(self, key: str, core: str = "") -> _Side | None:
        """One side of a LoHa or LoKr: whole, or ``<key>_a`` times ``<key>_b``; with a Tucker core (i, j, kh, kw) of
        transposed a (i, out) and b (j, in).
        """
        whole, a, b, tucker = (self.take(name) for name in (key, f"{key}_a", f"{key}_b", core))
        if whole is not None:
            return _Side(whole, 0)
        if a is None or b is None:
            return None
        product = torch.mm(a, b) if tucker is None else torch.einsum("ijkl,jr,ip->prkl", tucker, b, a)
        return _Side(product, b.shape[0])

    def rotated(self, stem: str, W: Tensor, bound: float) -> Tensor | None:
        """ΔW of an OFT: each block of outputs multiplied by its Cayley transform, ‖Q‖ being at most ``bound``."""
        if (blocks := self.take(f"{stem}.oft_blocks")) is None or blocks.dim() != 3:
            return None
        skew, eye = blocks - blocks.transpose(1, 2), torch.eye(blocks.shape[1])
        if (size := float(skew.norm())) > bound:
            skew *= bound / size
        turn = torch.matmul(eye + skew, torch.inverse(eye - skew)) - eye
        return torch.matmul(turn.transpose(1, 2), W.reshape(*blocks.shape[:2], -1)).reshape(W.shape)

    def decomposed(self, delta: Tensor, magnitude: Tensor, W: Tensor) -> Tensor:
        norm = W.reshape(W.shape[0], -1).norm(dim=1)
        return (W + delta) * (magnitude.reshape(-1) / norm).reshape(-1, *[1] * (W.dim() - 1)) - W


class _ComfyUi(_WebUi):
    """ComfyUI, which also reads an OFT, with alpha itself as its bound; 0 is none (``comfy/weight_adapter/oft.py``)."""

    def change(self, module: str, W: Tensor | None) -> Tensor | None:
        if f"{(stem := self.stems.get(module))}.oft_blocks" not in self.tensors:
            return super().change(module, W)
        alpha = self.take(f"{stem}.alpha")
        return self.rotated(f"{stem}", _needed(W, module), float(alpha) if alpha else math.inf)


class _A1111(_WebUi):
    """A1111, which also reads an OFT, with alpha · outputs as its bound even where that is 0 (``network_oft.py``), and
    an (IA)³ of linear layers (``network_ia3.py``).
    """

    def change(self, module: str, W: Tensor | None) -> Tensor | None:
        stem = self.stems.get(module)
        if f"{stem}.oft_blocks" in self.tensors:
            alpha = self.take(f"{stem}.alpha")
            return None if alpha is None else self.rotated(f"{stem}", W := _needed(W, module), float(alpha) * len(W))
        if f"{stem}.on_input" not in self.tensors or (vector := self.take(f"{stem}.weight")) is None:
            return super().change(module, W)
        on_input = bool(self.take(f"{stem}.on_input"))
        return _needed(W, module) * (vector if on_input else vector.reshape(-1, 1))

    def decomposed(self, delta: Tensor, magnitude: Tensor, W: Tensor) -> Tensor:
        """Its DoRA divides by the norm over each input's weights."""
        ones = [1] * (W.dim() - 2)
        norm = (W + delta).transpose(0, 1).reshape(W.shape[1], -1).norm(dim=1)
        return (W + delta) * (magnitude.reshape(-1, 1, *ones) / norm.reshape(1, -1, *ones)) - W


class _ForgeUi(_WebUi):
    """Forge, which also sorts files by their header and does not offer one of unknown architecture."""

    def __init__(self, path: Path, family: str):
        super().__init__(path, family)
        found, expected = self.metadata.get("modelspec.architecture", ""), _ARCHITECTURES.get(family, "")
        if expected and not found.startswith(expected):
            raise ValueError(
                tr(
                    "its header says {found} where Forge expects {expected}",
                    found=found or tr("nothing"),
                    expected=expected,
                )
            )


_ARCHITECTURES = {"sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2", "sdxl": "stable-diffusion-xl-v1-base"}


class _Diffusers(Reader):
    """diffusers, which reads its own names and, with a converter, kohya's, but without their ``dora_scale``."""

    def __init__(self, path: Path, family: str):
        with safe_open(str(path), framework="pt") as file:
            kohya = any(key.startswith("lora_") for key in file.keys())
        if kohya:
            super().__init__(
                path, family, lambda module: _trainer_name(module, family), ("lora_down.weight", "lora_up.weight")
            )
            self.config: dict[str, Any] = {}
            for encoder in ("lora_te_", "lora_te1_", "lora_te2_"):
                self._require_recognized([key for key in self.tensors if key.startswith(encoder)])
        else:
            super().__init__(path, family, str, ("lora_A.weight", "lora_B.weight"), "lora_magnitude_vector.weight")
            self.config = json.loads(self.metadata.get("lora_adapter_metadata", "{}"))

    def _require_recognized(self, keys: list[str]) -> None:
        """Raises ValueError where diffusers' converter would not recognize a text encoder's keys."""
        attention, outputs, inner = (any(part in key for key in keys) for part in ("self_attn", "out_proj", "_mlp_"))
        if keys and not outputs and (attention or not inner):
            raise ValueError(
                tr("diffusers' converter recognizes a text encoder by its out_proj layers, which are missing")
            )

    def scale(self, module: str, rank: int) -> float:
        """By the LoraConfig in the header; for kohya's files alpha / rank if the converter keeps a module's alpha."""
        component, _, rest = module.partition(".")
        config = {
            key[len(component) + 1 :]: value for key, value in self.config.items() if key.startswith(component + ".")
        }
        if config:
            return _peft_scale(config, rest.replace("text_model.", ""), rank)
        own = super().scale(module, rank)
        misnamed = component != "unet" or re.search(r"attn[12]\.to_", rest)
        return self.usual[component] / rank if misnamed and component in self.usual else own

    @cached_property
    def usual(self) -> dict[str, float]:
        """The most frequent alpha of each component. The converter misnames the alphas of attention and text encoders,
        so that those all get this one.
        """
        alphas: dict[str, Counter[float]] = {}
        for key, tensor in self.tensors.items():
            if key.endswith(".alpha"):
                part = {"lora_unet": "unet", "lora_te2": "text_encoder_2"}.get(
                    "_".join(key.split("_")[:2]), "text_encoder"
                )
                alphas.setdefault(part, Counter())[tensor.item()] += 1
        return {part: counted.most_common(1)[0][0] for part, counted in alphas.items()}


class _Peft(Reader):
    """peft's PeftModel, component by component; each folder's config has the alphas."""

    def __init__(self, path: Path, family: str):
        parts = [path] if (path / "adapter_config.json").exists() else sorted(path.glob("*/"))
        self.readers = {}
        for part in parts:
            component = "unet" if part == path else part.name
            reader = Reader(
                part / "adapter_model.safetensors",
                family,
                _live_name,
                ("lora_A.weight", "lora_B.weight"),
                "lora_magnitude_vector.weight",
            )
            config = json.loads((part / "adapter_config.json").read_text())
            reader.scale = lambda module, rank, config=config: _peft_scale(
                config, module.partition(".")[2].replace("text_model.", ""), rank
            )
            self.readers[component] = reader
        self.tolerance = max(reader.tolerance for reader in self.readers.values())

    @property
    def unread(self) -> set[str]:
        return set().union(*(reader.unread for reader in self.readers.values()))

    def change(self, module: str, W: Tensor | None) -> Tensor | None:
        reader = self.readers.get(module.partition(".")[0])
        return None if reader is None else reader.change(module, W)


def _needed(W: Tensor | None, module: str) -> Tensor:
    if W is None:
        raise ValueError(tr("the change of {module} depends on the base model's weight", module=module))
    return W.float()


def _layers(family: str) -> Mapping[str, tuple[int, ...]]:
    """The layers of the family's models with their weights' shapes; of all families' where it is unknown."""
    if known := registry.named(family):
        return known.modules
    return {path: shape for known in registry.FAMILIES for path, shape in known.modules.items()}


READERS: dict[str, Callable[[Path, str], Any]] = {
    "comfyui": _ComfyUi,
    "forge": _ForgeUi,
    "a1111": _A1111,
    "diffusers": _Diffusers,
    "peft": _Peft,
}


def _live_name(module: str) -> str:
    """The module's name in the live model of transformers 5, whose CLIPTextModel has no ``text_model`` inside."""
    component, _, rest = module.partition(".")
    return "base_model.model." + (
        rest[len("text_model.") :] if component == "text_encoder" and rest.startswith("text_model.") else rest
    )


def _peft_scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """lora_alpha / r, or / √r for rsLoRA; ``alpha_pattern`` takes precedence, matched at the end of the path."""
    alpha = config["lora_alpha"]
    for pattern, value in config.get("alpha_pattern", {}).items():
        expression = _expression(pattern)
        if expression.match(module) if expression else f".{module}".endswith(f".{pattern}"):
            alpha = value
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


@cache
def _expression(pattern: str) -> re.Pattern[str] | None:
    """What peft matches; None for a plain name, of which a config may have one for every layer."""
    return None if re.fullmatch(r"[\w.]+", pattern) else re.compile(rf"(.*\.)?({pattern})$")


def _trainer_name(module: str, family: str) -> str:
    """The name under which ComfyUI, Forge and diffusers' converter look a module up in a kohya file."""
    component, _, rest = module.partition(".")
    parts, known = rest.split("."), registry.named(family)
    if known and known.original_keys and component == known.denoiser:
        parts = _sgm_block(parts)
    return registry.kohya_prefix(component, family) + "_".join(parts)


_INSIDE = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def _sgm_block(parts: list[str]) -> list[str]:
    """SDXL's modules by the original's block numbers: each level takes three numbers, the first input block is
    ``conv_in``.
    """
    if parts[0] == "mid_block":
        place = {"attentions0": "1", "resnets0": "0", "resnets1": "2"}["".join(parts[1:3])]
        return ["middle_block", place, *_inner(parts[1], parts[3:])]
    if parts[0] not in ("down_blocks", "up_blocks"):
        return _OUTSIDE[".".join(parts)].split(".")
    first, level, kind, index = parts[0], int(parts[1]), parts[2], int(parts[3])
    if kind == "downsamplers":
        return ["input_blocks", str(3 * level + 3), "0", "op"]
    if kind == "upsamplers":
        return ["output_blocks", str(3 * level + 2), "2", "conv"]
    block = (
        ["input_blocks", str(3 * level + index + 1)]
        if first == "down_blocks"
        else ["output_blocks", str(3 * level + index)]
    )
    return [*block, "1" if kind == "attentions" else "0", *_inner(kind, parts[4:])]


def _inner(kind: str, rest: list[str]) -> list[str]:
    return _INSIDE[rest[0]].split(".") if kind == "resnets" else rest
