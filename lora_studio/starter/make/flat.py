"""Training with all parameters in one flat tensor: one optimizer kernel, one all-reduce, one average.

The modules compute in `dtype` on views of a flat working copy; the master copy, the moments and the moving average
are float32. On CUDA, `captured` turns a step into one graph, since a slow host could not launch its kernels in time.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import nn


def start() -> tuple[int, int, torch.device]:
    """Joins the process group of torchrun: (rank, world size, this process's device)."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    return rank, world, device


def captured(function: Callable[[], None], device: torch.device, warm_ups: int = 3) -> Callable[[], None]:
    """`function`, run a few times and then, on CUDA, recorded as a graph whose replay is returned."""
    if device.type != "cuda":
        return function
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_ups):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay


class FlatModel:
    """The parameters of some modules as one tensor, with AdamW, gradient clipping to norm 1 and a moving average."""

    def __init__(
        self,
        modules: Iterable[nn.Module],
        device: torch.device,
        dtype: torch.dtype,
        lr: float,
        average: float,
        decay: float = 0.01,
    ):
        self.params = [p for m in modules for p in m.parameters()]
        self.at = [0]  # where each parameter begins: aligned, and one entry more than there are parameters
        for p in self.params:
            self.at.append(self.at[-1] + math.ceil(p.numel() / 64) * 64)
        self.master = nn.Parameter(torch.zeros(self.at[-1], device=device))
        self.grad = self.master.grad = torch.zeros_like(self.master)
        self.work = torch.zeros(self.at[-1], device=device, dtype=dtype)
        for p, i in zip(self.params, self.at, strict=False):
            self.master.data[i : i + p.numel()] = p.data.to(device).float().flatten()
            p.data = self.work[i : i + p.numel()].view(p.shape)
        self.peak, self.rate, self.steps = lr, average, 0
        self.average = self.master.data.clone()
        self.optimizer = torch.optim.AdamW(
            [self.master], lr=lr, betas=(0.9, 0.99), eps=1e-8, weight_decay=decay, fused=device.type == "cuda"
        )
        self.load(self.master.data)

    def load(self, master: torch.Tensor, average: torch.Tensor | None = None) -> None:
        """Takes the values of a checkpoint."""
        self.master.data.copy_(master)
        self.average.copy_(master if average is None else average)
        self.work.copy_(self.master.data)

    def use_average(self) -> None:
        """Puts the moving average into the modules, in float32 and for good."""
        for p, i in zip(self.params, self.at, strict=False):
            p.data = self.average[i : i + p.numel()].view(p.shape)

    def backward(self, loss: torch.Tensor) -> None:
        """Writes the gradient of `loss` into the flat gradient."""
        grads = torch.autograd.grad(loss, self.params, allow_unused=True)
        room = [self.grad[i : i + p.numel()].view(p.shape) for p, i in zip(self.params, self.at, strict=False)]
        pairs = [(r, g) for r, g in zip(room, grads, strict=True) if g is not None]
        torch._foreach_copy_([r for r, _ in pairs], [g for _, g in pairs])

    def step(self, factor: float) -> None:
        """One update at `factor` times the peak learning rate, with the gradient averaged over all processes."""
        if dist.is_initialized():
            dist.all_reduce(self.grad)
            self.grad.div_(dist.get_world_size())
        self.grad.mul_((1 / (self.grad.norm() + 1e-6)).clamp(max=1))
        self.move(self.peak * factor)
        self.steps += 1
        self.average.lerp_(self.master.data, 1 - min(self.rate, self.steps / (self.steps + 9)))
        self.work.copy_(self.master.data)

    def move(self, rate: float) -> None:
        """Moves the master copy by the optimizer's update."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()


class TimeBudget:
    """The share of the given time that has passed, 0 to 1, and the learning rate's factor; equal in every process."""

    def __init__(
        self, seconds: float, device: torch.device, begin: float = 0.0, hold: float = 0.35, warm_up: int = 300
    ):
        self.seconds, self.hold, self.warm_up, self.begin = seconds, hold, warm_up, begin
        self.device, self.since, self.part, self.ticks = device, time.monotonic(), begin, 0

    def tick(self) -> float:
        """Counts one step, and reads the first process's clock at every tenth. Returns the rate's factor."""
        if self.ticks % 10 == 0:
            now = torch.tensor(
                [self.begin + (1 - self.begin) * (time.monotonic() - self.since) / self.seconds], device=self.device
            )
            if dist.is_initialized():
                dist.broadcast(now, 0)
            self.part = float(now)
        self.ticks += 1
        fall = max(0.0, 1 - max(0.0, self.part - self.hold) / (1 - self.hold))
        return min(1.0, self.ticks / self.warm_up) * fall


class Log:
    """Prints the first process's progress every 20 seconds."""

    def __init__(self, name: str, rank: int, each: int, device: torch.device):
        """`each`: samples per step in all processes together."""
        self.name, self.rank, self.each = name, rank, each
        self.began = self.told = time.monotonic()
        self.total, self.count = torch.zeros((), device=device), 0

    def add(self, loss: torch.Tensor, steps: int, part: float) -> None:
        """Adds one step's loss. `part`: the share of the time that has passed."""
        self.total += loss
        self.count += 1
        now = time.monotonic()
        if self.rank == 0 and now - self.told > 20:
            speed = steps * self.each / (now - self.began)
            average = f"loss {float(self.total) / self.count:.4f}"
            print(
                f"{self.name} {now - self.began:.0f} s: step {steps}, {average}, {speed:.0f} a second, {part:.1%}",
                flush=True,
            )
            self.told, self.count = now, 0
            self.total.zero_()


def train(
    run: Callable[[], None],
    flat: FlatModel,
    loss: torch.Tensor,
    clock: TimeBudget,
    log: Log,
    keep: Callable[[], None] = lambda: None,
) -> None:
    """Trains until the time is over. The first process calls `keep` every two minutes, to save."""
    kept = time.monotonic()
    while clock.part < 1:
        factor = clock.tick()
        run()
        flat.step(factor)
        log.add(loss, flat.steps, clock.part)
        if log.rank == 0 and time.monotonic() - kept > 120:
            keep()
            kept = time.monotonic()
