"""Compares the memory estimate with the bytes that autograd keeps, for the exact shapes of SD 1.5, 2.1 and SDXL, and
with what a card reserved: ``python tests/benchmarks/memory.py``.

Needs no GPU and little memory, since the models are on the meta device. The figures of a card were measured earlier, in
whole runs.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_studio.config.settings import Settings
from lora_studio.families.family import CONFIGS
from lora_studio.models.parts import read_json
from lora_studio.models.shapes import Shapes
from lora_studio.training import memory, unet_activations
from lora_studio.training.activations import Step
from tests.training.saved import card, measure

PARAMETERS = {
    "sd1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
}
CASES = [
    ("sd1", "bf16", {}),
    ("sd1", "bf16", {"batch": 4, "checkpointing": "largest"}),
    ("sd1", "bf16", {"checkpointing": "all", "quantize": "nf4", "optimizer": "adamw8bit"}),
    ("sd1", "bf16", {"targets": "attention+ff+conv", "rank": 32}),
    ("sd1", "fp32", {"targets": "attention+ff+conv"}),
    ("sd1", "bf16", {"method": "dora"}),
    ("sd2", "bf16", {}),
    ("sd2", "fp16", {"targets": "attention+ff", "rank": 128, "dropout": 0.1}),
    ("sdxl", "bf16", {}),
    ("sdxl", "bf16", {"targets": "attention+ff"}),
    ("sdxl", "bf16", {"checkpointing": "largest", "optimizer": "adamw8bit"}),
    ("sdxl", "bf16", {"checkpointing": "all", "optimizer": "adamw8bit"}),
    ("sdxl", "bf16", {"checkpointing": "all", "optimizer": "adamw8bit", "quantize": "nf4"}),
    ("sdxl", "bf16", {"method": "dora", "resolution": 768}),
    ("sdxl", "bf16", {"batch": 4, "targets": "qv"}),
]


MEASURED = [
    ("sd1", {}, 2.29, 2.38),
    ("sd1", {"batch": 4}, 4.07, 4.19),
    ("sd1", {"batch": 16}, 11.18, 11.46),
    ("sd1", {"batch": 4, "checkpointing": "largest"}, 3.20, 3.34),
    ("sd1", {"method": "dora"}, 2.64, 2.77),
    ("sd1", {"targets": "attention+ff+conv", "rank": 32}, 2.99, 3.19),
    ("sd1", {"quantize": "int8"}, 2.18, 2.20),
    ("sd1", {"quantize": "nf4", "checkpointing": "all", "optimizer": "adamw8bit"}, 1.51, 1.59),
    ("sdxl", {}, 9.54, 9.80),
    ("sdxl", {"batch": 4}, 22.43, 22.75),
    ("sdxl", {"resolution": 768, "batch": 2, "targets": "attention+ff"}, 11.66, 11.89),
    ("sdxl", {"checkpointing": "largest"}, 6.81, 7.00),
    ("sdxl", {"checkpointing": "all", "optimizer": "adamw8bit"}, 5.60, 5.82),
    ("sdxl", {"quantize": "nf4", "checkpointing": "all", "optimizer": "adamw8bit"}, 2.58, 2.73),
]
"""Settings, and GiB on a card in bf16 (an NVIDIA H200, torch 2.11): the most that the steps of a whole run allocated,
and the most that was reserved.
"""


def shapes(family: str) -> Shapes:
    """The exact shapes, as the family's single files have them."""
    unet, vae = (read_json(CONFIGS / family / f"{part}.json") for part in ("unet", "vae"))
    return Shapes(family, 8 * unet["sample_size"], unet, vae, PARAMETERS[family])


def words(changes: dict) -> str:
    """The settings as they are typed after ``--set``."""
    return " ".join(f"{key}={value}" for key, value in changes.items()) or "defaults"


def kept() -> None:
    """Prints the table of what autograd keeps."""
    print(
        f"{'family':7} {'format':7} {'settings':54} {'kept MiB':>8}  estimate    off   highest  estimate    off"
        "  | estimate GiB: weights  a step    least   (in ms)"
    )
    for family, precision, changes in CASES:
        settings, shape = Settings(**changes), shapes(family)
        measured, most, _ = measure(settings, shape, precision)
        began = time.perf_counter()
        found = memory.estimate(settings, shape, precision)
        took = 1e3 * (time.perf_counter() - began)
        estimated = unet_activations.walk(shape, Step.of(settings, shape, memory.BYTES[precision]))
        stored, highest = estimated.saved(), estimated.highest()
        print(
            f"{family:7} {precision:7} {words(changes):54}"
            f" {measured / 2**20:8.0f} {stored / 2**20:9.0f} {stored / measured - 1:+6.1%}"
            f" {most / 2**20:9.0f} {highest / 2**20:9.0f} {highest / most - 1:+6.1%}"
            f"  | {found.weights / 2**30:21.2f} {found.step / 2**30:7.2f} {found.peak / 2**30:8.2f}   ({took:.1f})",
            flush=True,
        )


def held() -> None:
    """Prints the table of what a card allocated and reserved in its steps."""
    print(f"\n{'family':7} {'settings':54} GiB allocated  estimate    off   reserved  estimate    off")
    for family, changes, allocated, reserved in MEASURED:
        step = memory.estimate(Settings(**changes), shapes(family), "bf16").step / 2**30
        columns = [
            f"{measured:9.2f} {size:9.2f} {size / measured - 1:+6.1%}" if measured else " " * 26
            for measured, size in ((allocated, step / memory.RESERVED), (reserved, step))
        ]
        print(f"{family:7} {words(changes):57} {'   '.join(columns)}".rstrip())


if __name__ == "__main__":
    with card():
        kept()
        held()
