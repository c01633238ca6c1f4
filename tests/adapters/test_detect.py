"""What a file is, from keys and shapes: metadata may lie (fault 33)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lora_studio.adapters import detect, keys, kinds
from tests.adapters.adapter_samples import FAMILIES, golden


def shapes(family: str, pick=lambda path: True, factor: int = 1) -> dict[str, tuple[int, ...]]:
    """The golden files' weights by path; ``factor`` makes all of them that much narrower, as the starter is."""
    modules, unknown = keys.collect(golden(family))
    assert not unknown
    found = {path: detect.weight_shape(module) for path, module in modules.items()}
    return {path: (shape[0] // factor, shape[1] // factor, *shape[2:]) for path, shape in found.items() if pick(path)}


PARTS = {
    "all": lambda path: True,
    "unet": lambda path: path.startswith("unet."),
    "attention": lambda path: ".attn" in path and path.startswith("unet."),
    "queries and values": lambda path: path.endswith(("to_q", "to_v")),
    "cross-attention keys": lambda path: path.endswith("attn2.to_k"),
}


@pytest.mark.fault(33)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_follows_from_shapes_where_metadata_lies(family, part):
    lie = {"ss_base_model_version": "sdxl_base_v1-0" if family != "sdxl" else "sd_v1"}
    assert detect.family(shapes(family, PARTS[part]), lie) == family


@pytest.mark.parametrize("part", [*PARTS, "self-attention"])
@pytest.mark.parametrize("factor", [2, 5])
def test_the_starter_is_a_narrow_sd1(part, factor):
    pick = PARTS.get(part, lambda path: ".attn1." in path)
    assert detect.family(shapes("sd1", pick, factor)) == "starter"


def test_starter_with_real_widths():
    widths = {
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (64, 64),
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v": (192, 256),
        "unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k": (64, 256),
    }
    assert detect.family(widths) == "starter"


def test_metadata_decides_only_where_shapes_leave_it_open():
    one = shapes("sd1", lambda path: path.startswith("text_encoder."))
    assert detect.family(one) == "sd1"
    assert detect.family(one, {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}) == "sdxl"
    assert detect.family(one, {"ss_base_model_version": "sd_v2"}) == "sd1"


def test_widths_of_no_known_family_are_unknown():
    odd = {f"unet.down_blocks.{i}.attentions.0.transformer_blocks.0.attn2.to_k": (3072, 4096) for i in range(3)}
    assert detect.family(odd) == "unknown"
    assert detect.family({}) == "unknown"


@pytest.mark.parametrize(
    ("roles", "kind"),
    [
        ({"down": (4, 8), "up": (8, 4)}, "lora"),
        ({"down": (4, 8, 1, 1), "up": (8, 4, 1, 1)}, "lora"),
        ({"down": (4, 8, 3, 3), "up": (8, 4, 1, 1)}, "locon"),
        ({"down": (4, 8, 1, 1), "mid": (4, 4, 3, 3), "up": (8, 4, 1, 1)}, "locon"),
        ({"down": (4, 8), "up": (8, 4), "dora_scale": (8, 1)}, "dora"),
        ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 8), "hada_w2_a": (8, 2), "hada_w2_b": (2, 8)}, "loha"),
        ({"lokr_w1": (2, 2), "lokr_w2_a": (4, 3), "lokr_w2_b": (3, 4)}, "lokr"),
    ],
)
def test_kind_rank_and_weight_shape(roles, kind):
    assert kinds.of({"m": roles}).name == kind
    assert detect.weight_shape(roles)[:2] == (8, 8)
    assert detect.rank(roles) == {"loha": 2, "lokr": 3}.get(kind, 4)


@pytest.mark.parametrize(
    ("key", "dialect"),
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "kohya"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "diffusers"),
        ("base_model.model.conv_in.lora_A.weight", "peft"),
        ("conv_in.weight", "none"),
    ],
)
def test_dialect(key, dialect):
    assert detect.dialect([key]) == dialect


def test_headers_are_read_without_torch():
    """The library's page lists adapters in a process that must start in milliseconds."""
    imported = "import sys; from lora_studio.adapters import header, summary, metadata, recipe"
    code = f"{imported}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
