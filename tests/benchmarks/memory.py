"""The memory's arithmetic against autograd's own bytes, for the exact shapes of SD 1.5, 2.1 and SDXL: ``python tests/benchmarks/memory.py``.

Runs without a GPU and in little memory: the models stand on the meta device. So it tells what a step keeps for the way back, not what a card reserves.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_studio.models import single
from lora_studio.models.parts import read_json
from lora_studio.models.shapes import Shapes
from lora_studio.settings import Settings
from lora_studio.training import memory
from tests.training.saved import saved

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


def shapes(family: str) -> Shapes:
    """The exact shapes, as the family's single files have them."""
    unet, vae = (read_json(single.CONFIGS / family / f"{part}.json") for part in ("unet", "vae"))
    return Shapes(family, 8 * unet["sample_size"], unet, vae, PARAMETERS[family])


def main() -> None:
    print("family  format  settings                                                                saved MiB  reckoned    off   | whole run, reckoned GiB: weights   a step     peak   (reckoned in ms)")
    for family, precision, changes in CASES:
        settings, shape = Settings(**changes), shapes(family)
        began = time.perf_counter()
        found = memory.estimate(settings, shape, precision)
        took = 1e3 * (time.perf_counter() - began)
        measured, _ = saved(settings, shape, precision)
        reckoned = memory.unet_of(settings, shape, memory._BYTES[precision]).saved()
        words = " ".join(f"{key}={value}" for key, value in changes.items()) or "defaults"
        print(f"{family:7} {precision:7} {words:71} {measured / 2**20:9.0f} {reckoned / 2**20:9.0f} {reckoned / measured - 1:+7.1%}  |"
              f" {found.weights / 2**30:32.2f} {found.step / 2**30:8.2f} {found.peak / 2**30:8.2f}   ({took:.1f})", flush=True)


if __name__ == "__main__":
    main()
