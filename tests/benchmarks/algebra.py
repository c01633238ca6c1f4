"""The speed of the adapter algebra: ``python tests/benchmarks/algebra.py``.

Full-size random adapters of SD 1.5 (128 attention modules) and SDXL (560), rank 32, fp16, on at most two threads (one
with OMP_NUM_THREADS=1). Prints the best of three runs after a warm-up, in wall seconds and in processor seconds, which
other programs disturb less. The usual method, a full SVD of every product, is timed in the same run on a few modules
and scaled up (~), so that the ratios (of processor seconds) hold on any machine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "adapters")]

import torch  # noqa: E402

from lora_studio.adapters import Adapter, Factors, analysis, blend, detect, keys, listing, recipe, resize, write  # noqa: E402
from tests.adapters.adapter_samples import golden  # noqa: E402

RANK = 32


def adapter(family: str, seed: int, rank: int = RANK) -> Adapter:
    """Attention modules of the golden list, with spectra that decay like trained ones."""
    generator = torch.Generator().manual_seed(seed)
    modules, _ = keys.collect(golden(family))
    shapes = {
        path: detect.weight_shape(module)
        for path, module in modules.items()
        if path.startswith("unet.") and ".attn" in path
    }
    fall = torch.logspace(0, -2, rank)
    factors = {}
    for path, (out, into) in shapes.items():
        down, up = (
            torch.randn(rank, into, generator=generator),
            torch.randn(out, rank, generator=generator) * fall * 0.01,
        )
        factors[path] = Factors(down.half(), up.half(), float(rank))
    return Adapter(factors)


def timed(call: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """Wall seconds and processor seconds, each of the best run after a warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return min(wall for wall, _ in times), min(cpu for _, cpu in times)


def full_svd(one: Adapter, rank: int) -> float:
    """Processor seconds to truncate every full product by SVD, estimated from one module of each shape."""
    groups: dict[tuple[int, ...], list[Factors]] = {}
    for factors in one.factors.values():
        groups.setdefault(factors.shape, []).append(factors)
    total = 0.0
    for members in groups.values():
        start = time.process_time()
        U, S, Vt = torch.linalg.svd(members[0].delta())
        (U[:, :rank] * S[:rank]).contiguous(), Vt[:rank].contiguous()
        total += (time.process_time() - start) * len(members)
    return total


def both(one: Adapter, other: Adapter, method: str, rank: int) -> blend.Blended:
    made = recipe.blend(
        method=method, rank=rank, ingredients=[{"name": "one", "weight": 0.7}, {"name": "other", "weight": -0.3}]
    )
    return blend.blend(made, [one, other])


def catalogue(count: int = 1000) -> tuple[float, float]:
    """Seconds to list ``count`` SD 1.5 adapters: first by their headers, then again from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        first = write(adapter("sd1", 0, rank=1), Path(folder, "0.safetensors"))
        paths = [first] + [Path(folder, f"{index}.safetensors") for index in range(1, count)]
        for path in paths[1:]:
            path.write_bytes(first.read_bytes())
        times = []
        for _ in range(2):
            start = time.perf_counter()
            for path in paths:
                listing.summary(path)
            times.append(time.perf_counter() - start)
    return times[0], times[1]


def main() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print(f"{'':56}{'seconds':>8}{'processor':>11}{'full SVD':>10}{'times as fast':>15}", flush=True)
    for family, label in (("sd1", "SD 1.5, 128 modules"), ("sdxl", "SDXL, 560 modules")):
        one, other = adapter(family, 1), adapter(family, 2)
        slow = full_svd(one, 8)
        rows = {
            "rank 32 to 8": lambda one=one: resize.to_rank(one, 8),
            "to 99 % of the energy": lambda one=one: resize.to_energy(one, 0.99),
            "two of rank 32 blended, to rank 16": lambda one=one, other=other: both(one, other, "svd", 16),
            "two blended exactly": lambda one=one, other=other: both(one, other, "exact", 0),
            "two by TIES, to rank 16": lambda one=one, other=other: both(one, other, "ties", 16),
            "two by SVC, to rank 16": lambda one=one, other=other: both(one, other, "svc", 16),
            "two by median, to rank 16": lambda one=one, other=other: both(one, other, "median", 16),
            "two compressed to rank 16": lambda one=one, other=other: both(one, other, "ctm", 16),
            "analysis": lambda one=one: analysis.analyze(one),
            "comparison": lambda one=one, other=other: analysis.compare(one, other),
        }
        for name, call in rows.items():
            wall, cpu = timed(call)
            usual = "rank" in name and " by " not in name and "compressed" not in name
            ratio = f"{slow:>9.0f}~{slow / cpu:>15.0f}" if usual else ""
            print(f"{label + ': ' + name:<56}{wall:>8.3f}{cpu:>11.3f}{ratio}", flush=True)
    cold, warm = catalogue()
    print(f"\n1,000 adapters listed by their headers: {cold:.2f} s; again: {warm:.3f} s")


if __name__ == "__main__":
    main()
