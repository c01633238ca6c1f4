"""What hostile files may cost: memory and time, measured in a process of its own that does nothing else."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.dataset import made

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells how much memory a process had at most"
)
MB = 2**20
CHILD = """
import json, sys, time
from pathlib import Path
from lora_studio.errors import StudioError
{imports}
folder = Path(sys.argv[1])

def memory(field):
    return int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1]) * 1024

open("/proc/self/clear_refs", "w").write("5")  # forget the peak that importing had
before, began = memory("VmRSS"), time.process_time()
try:
    said = str({call})
except StudioError as error:
    said = "refused: " + error.what
print(json.dumps([said, memory("VmHWM") - before, time.process_time() - began]))
"""


class Cost(NamedTuple):
    """What was said, bytes at most, and seconds of a processor."""

    said: str
    bytes: int
    seconds: float


def cost(folder: Path, imports: str, call: str) -> Cost:
    """Runs ``call``, in which ``folder`` is that folder."""
    code = CHILD.format(imports=imports, call=call)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return Cost(*json.loads(done.stdout))


PICTURES = "from lora_studio.dataset.pictures import examine"
HEADERS = "from lora_studio.adapters.container import peek, read_header"
ARCHIVES = "from lora_studio.dataset.archive import unpack"


@pytest.mark.fault(6, 7)
@pytest.mark.parametrize(("width", "height"), [(20000, 20000), (11000, 11000)])
def test_a_picture_that_unpacks_to_a_gigabyte_costs_nothing(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(made.claiming_png(width, height))
    said, size, seconds = cost(tmp_path, PICTURES, "examine(folder / 'bomb.png')")
    assert said.startswith("refused: The picture is too large") and size < 8 * MB and seconds < 1


@pytest.mark.fault(17)
def test_a_zip_is_unpacked_piece_by_piece(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for index in range(2):
            packed.writestr(f"{index}.bmp", np.random.default_rng(index).bytes(40 * MB))
    said, size, _ = cost(tmp_path, ARCHIVES, "unpack(folder / 'a.zip', folder / 'out')")
    assert said == str(tmp_path / "out") and size < 16 * MB


@pytest.mark.fault(17)
def test_a_bomb_is_left_before_it_fills_anything(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.bmp", bytes(100 * MB))
    said, size, seconds = cost(tmp_path, ARCHIVES, "unpack(folder / 'a.zip', folder / 'out')")
    assert (
        "200 times its size" in said
        and size < 8 * MB
        and seconds < 1
        and [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    )


def header(path: Path, text: bytes, length: int | None = None) -> Path:
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text)
    return path


@pytest.mark.fault(24)
@pytest.mark.parametrize("length", [2**63, 101 * 10**6])
@pytest.mark.parametrize("reader", ["read_header", "peek"])
def test_a_huge_header_is_not_read(tmp_path, reader, length):
    header(tmp_path / "a.safetensors", bytes(101 * 10**6), length)
    said, size, seconds = cost(tmp_path, HEADERS, f"{reader}(folder / 'a.safetensors')")
    assert "its header would be" in said and size < 4 * MB and seconds < 0.5


@pytest.mark.fault(25)
@pytest.mark.parametrize(("count", "said"), [(800_000, "its header would be"), (200_000, "more than 50,000 tensors")])
@pytest.mark.parametrize("reader", ["read_header", "peek"])
def test_a_header_of_countless_tensors_is_refused_in_a_moment(tmp_path, reader, count, said):
    """The library takes 13 seconds over 800,000 of them."""
    entries = b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % index for index in range(count))
    header(tmp_path / "a.safetensors", b"{" + entries + b"}")
    told, size, seconds = cost(tmp_path, HEADERS, f"{reader}(folder / 'a.safetensors')")
    assert said in told and size < 64 * MB and seconds < 1


@pytest.mark.fault(33)
@pytest.mark.parametrize("reader", ["read_header", "peek"])
def test_oversized_metadata_costs_a_moment(tmp_path, reader):
    header(
        tmp_path / "a.safetensors",
        json.dumps({"__metadata__": {str(index): "x" * 15 for index in range(400_000)}}).encode(),
    )
    said, size, seconds = cost(tmp_path, HEADERS, f"bool({reader}(folder / 'a.safetensors'))")
    assert said == "True" and size < 200 * MB and seconds < 3


@pytest.mark.fault(22)
def test_five_thousand_pictures_are_shown_in_a_moment(tmp_path):
    """What is shown is bounded; the rest is counted from what an earlier look remembered."""
    (tmp_path / "style").mkdir()
    for index in range(5000):
        (tmp_path / "style" / f"{index}.png").write_bytes(b"x")
    imports = """
import random
from lora_studio.config.settings import Settings
from lora_studio.dataset import folder as datasets
from lora_studio.dataset.pictures import Facts
from lora_studio.ui.pages.pictures import cards
from lora_studio.ui.pages.pictures.look import Collections, PicturesLook
from lora_studio.ui.pages.train import pictures
pick = random.Random(0).getrandbits
def facts(path):
    return Facts(512, 512, f"{pick(256):064x}", f"{pick(152):038x}")
datasets.pictures.examine = facts
datasets.scan(Path(sys.argv[1]) / "style", Path(sys.argv[1]) / ".cache")
look = PicturesLook(Settings(data=str(Path(sys.argv[1]) / "style")))
def shown(place):
    found = Collections(place).of(look)
    return pictures.report(found.dataset, look.settings, place) + cards.html(look, found.find(look.query), found, place)
"""
    said, size, seconds = cost(
        tmp_path,
        imports,
        "(len(page := shown(folder)), page.count('data-name='), '4,500 pictures train, 500 held out' in page)",
    )
    length, shown, counted = json.loads(said.replace("(", "[").replace(")", "]").replace("True", "true"))
    assert length < 100_000 and shown == 60 and counted and size < 64 * MB and seconds < 3
