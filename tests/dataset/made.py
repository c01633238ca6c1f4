"""Files that tests make: painted pictures, colour profiles and a PNG that claims any size."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def painted(width: int = 64, height: int = 64, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A smooth picture that looks like no other seed's."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def corners(width: int = 32, height: int = 16) -> Image.Image:
    """Red, green, blue and white quarters, so that every turn and mirroring looks different."""
    picture = Image.new("RGB", (width, height), "white")
    picture.paste("red", (0, 0, width // 2, height // 2))
    picture.paste((0, 255, 0), (width // 2, 0, width, height // 2))
    picture.paste("blue", (0, height // 2, width // 2, height))
    return picture


def style_folder(folder: Path, count: int = 4, captions: bool = True) -> Path:
    """A sound folder of ``count`` 64 × 64 pictures: 0.png, 0.txt, 1.png …"""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        painted(seed=index).save(folder / f"{index}.png")
        if captions:
            (folder / f"{index}.txt").write_text(f"thing {index}, ink, paper", "utf-8")
    return folder


def claiming_png(width: int, height: int) -> bytes:
    """A small PNG whose header says ``width`` × ``height`` pixels of one bit, all its rows packed to almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def linear_profile(space: str) -> bytes:
    """An ICC profile with sRGB's primaries (``space`` "RGB ") or a grey axis ("GRAY") but a straight tone curve: 128
    means sRGB 188.
    """
    straight = b"curv" + bytes(8)
    if space == "GRAY":
        return _icc(space, "XYZ ", {"kTRC": straight})
    xyz = {"rXYZ": (0.4361, 0.2225, 0.0139), "gXYZ": (0.3851, 0.7169, 0.0971), "bXYZ": (0.1431, 0.0606, 0.7141)}
    return _icc(
        space,
        "XYZ ",
        {name: _xyz(*value) for name, value in xyz.items()} | {f"{letter}TRC": straight for letter in "rgb"},
    )


def odd_ink_profile() -> bytes:
    """A CMYK profile of a press whose cyan ink is red: no conversion that passes it over gives red."""

    def lab(c: int, m: int, y: int, k: int) -> bytes:
        named = {(0, 0, 0, 0): (255, 128, 128), (1, 0, 0, 0): (136, 208, 195), (0, 0, 0, 1): (0, 128, 128)}
        return bytes(named.get((c, m, y, k), (128, 128, 128)))

    grid = b"".join(lab(*inks) for inks in itertools.product((0, 1), repeat=4))
    straight = bytes(range(256))
    identity = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    return _icc(
        "CMYK",
        "Lab ",
        {"A2B0": b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + straight * 4 + grid + straight * 3},
    )


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in (x, y, z)))


def _icc(space: str, connection: str, tags: dict[str, bytes]) -> bytes:
    """A version 2 profile (ICC.1:2001-04, §6 and §7) with the tags that every one must have."""
    text = b"test\0"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {"desc": described, "cprt": b"text" + bytes(4) + text, "wtpt": _xyz(0.9642, 1.0, 0.8249)} | tags
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name.encode() + struct.pack(">II", offset + len(body), len(data))
        body += data
    kind = b"prtr" if space == "CMYK" else b"mntr"
    head = struct.pack(
        ">I4sI4s4s4s", offset + len(body), b"test", 0x02100000, kind, space.encode(), connection.encode()
    )
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
