"""Processes that train one adapter together, each on a GPU of its own: they take parts of the same batch and exchange
gradients.

The leader, rank 0, runs the training loop. It alone answers requests, draws, validates, saves and reports events; the
others follow its commands, one before each step, so that all stop, pause and roll back at the same step. Commands go
over connections that may be silent for days and notice at once when a process ends (gloo). Gradients go from GPU to GPU
(NCCL); every process gets the same sums and so takes the same step.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from lora_studio.config.slices import MachineSettings
from lora_studio.errors import MachineError
from lora_studio.language import tr
from lora_studio.training import checkpoint, devices

SILENCE = timedelta(days=7)
"""How long followers wait for the next command: through a queue, a long encoding, a pause."""
PATIENCE = timedelta(minutes=10)
"""How long an exchange of gradients may take: each process has the same work before it."""
LOOPBACK = "127.0.0.1"


class PeerLost(MachineError):
    """Another process of the run ended, or can no longer be reached."""


class Command(IntEnum):
    """What the leader has the other processes do."""

    STEP = 0
    """Take the next step."""
    STATE = 1
    """Take over the state that follows."""
    END = 2
    """End: the run is over."""
    FIND_RATE = 3
    """Find the learning rate."""


class World:
    """The processes of a run as one of them sees them. This one is alone: it has nobody to command or to wait for."""

    rank = 0
    size = 1
    """How many processes there are."""
    place: int | None = None
    """Which of this machine's GPUs this process uses; None leaves it to the settings."""

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def part(self) -> slice:
        """This process's samples of each batch."""
        return slice(self.rank, None, self.size)

    @property
    def stream(self) -> tuple[int, ...]:
        """A key that keeps this process's random numbers apart from the others'; empty for the leader."""
        return (self.rank,) if self.rank else ()

    def named(self, device: str) -> str:
        """All devices together, for people."""
        return tr("{count} × {device}", count=self.size, device=device) if self.size > 1 else device

    def broadcast(self, thing: Any) -> Any:
        """Gives every process the leader's ``thing``."""
        return thing

    @contextmanager
    def leader_first(self) -> Generator[None]:
        """The leader does the body of the ``with`` statement first, then all others at once."""
        yield

    def connect(self, device: torch.device) -> None:
        """Makes the connections of ``average`` between the processes' devices, which are of one kind."""

    def average(self, numbers: Tensor) -> None:
        """Replaces ``numbers`` (N,) float32 by their mean over all processes."""

    def command(self, command: Command) -> None:
        """Sends the leader's command to all others."""

    def send_state(self, state: dict[str, Any]) -> None:
        """Has the others take over the leader's state."""


class JoinedWorld(World):
    """One of several processes, which have found each other through ``store``."""

    def __init__(self, store: dist.Store, rank: int, size: int, place: int):
        self.rank, self.size, self.place = rank, size, place
        with _together():
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=SILENCE)
        self._devices: dist.ProcessGroup | None = None

    def broadcast(self, thing: Any) -> Any:
        box = [thing]
        with _together():
            dist.broadcast_object_list(box)
        return box[0]

    @contextmanager
    def leader_first(self) -> Generator[None]:
        if not self.leads:
            self.broadcast(None)
        yield
        if self.leads:
            self.broadcast(None)

    def connect(self, device: torch.device) -> None:
        backend = "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
        with _together():
            self._devices = dist.new_group(backend=backend, timeout=PATIENCE)
        self.average(torch.zeros(1, device=device))  # connects, which could not be captured in a CUDA graph

    def average(self, numbers: Tensor) -> None:
        with _together():
            dist.all_reduce(numbers, group=self._devices)
        numbers.div_(self.size)

    def command(self, command: Command) -> None:
        with _together():
            dist.broadcast(torch.tensor([command]), 0)
        if command is Command.END:
            self.leave()

    def next_command(self) -> Command:
        """Waits for the leader's next command."""
        number = torch.zeros(1, dtype=torch.int64)
        with _together():
            dist.broadcast(number, 0)
        return Command(int(number))

    def send_state(self, state: dict[str, Any]) -> None:
        self.command(Command.STATE)
        tensors: dict[str, Tensor] = {}
        self.broadcast((checkpoint.flatten(state, tensors), tensors))

    def receive_state(self, device: torch.device) -> dict[str, Any]:
        """The state that the leader sends after ``Command.STATE``."""
        tree, tensors = self.broadcast(None)
        return checkpoint.unflatten(tree, {name: tensor.to(device) for name, tensor in tensors.items()})

    def leave(self, peer_lost: bool = False) -> None:
        """Closes the connections. Where another process is gone (``peer_lost``) nothing more is waited for. A second
        call does nothing.
        """
        if not dist.is_initialized():
            return
        if peer_lost and self._devices is not None and dist.get_backend(self._devices) == "nccl":
            self._devices.abort()
        dist.destroy_process_group()


@contextmanager
def joined(store: dist.Store | None = None, size: int = 0) -> Generator[JoinedWorld]:
    """The leader of ``size`` processes that meet at ``store``; without a store, the process that torchrun, accelerate
    or the leader describes in the environment.

    Raises:
        PeerLost: another process ended, or was not found.
    """
    world = JoinedWorld(store, 0, size, 0) if store else _launched()
    try:
        yield world
    except BaseException:
        world.leave(peer_lost=True)
        raise
    world.leave()


def _launched() -> JoinedWorld:
    with _together():
        store, rank, size = next(dist.rendezvous("env://", timeout=SILENCE))
    return JoinedWorld(store, rank, size, int(os.environ.get("LOCAL_RANK", 0)))


def host() -> dist.TCPStore:
    """Where the processes of this machine find each other: only this machine can reach it, and them."""
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if name := _loopback():
            os.environ[variable] = name
    if os.name == "nt":
        return dist.TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False, timeout=SILENCE)
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    return dist.TCPStore(
        LOOPBACK, port, is_master=True, wait_for_workers=False, timeout=SILENCE, master_listen_fd=listening.detach()
    )


def _loopback() -> str:
    """The name of the loopback network interface; empty where there is none or it cannot be chosen."""
    if os.name == "nt":
        return ""
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, addresses in interfaces if any(one.address == LOOPBACK for one in addresses)), "")


def require(machine: MachineSettings) -> None:
    """Raises MachineError where this machine has fewer GPUs than the settings share the work between. Where the CPU is
    chosen by name, several processes can share it.
    """
    if machine.device != "cpu":
        devices.require(machine.gpus)


@contextmanager
def _together() -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        if devices.memory_full(error) or devices.lost(error):
            raise
        first = str(error).partition("\n")[0]
        raise PeerLost(
            tr("Another process of the run ended or cannot be reached: {error}", error=first),
            where="gpus",
            do=tr("Resume the run from its last saved state. The other process's terminal or log says why it ended."),
        ) from error
