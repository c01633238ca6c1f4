"""Processes that train one adapter together, each on a GPU of its own: they take parts of the same batch and exchange
gradients.

The leader, rank 0, is the run. It alone hears requests, draws, validates, saves and speaks; the others follow. Before
each step it tells them what comes next, so that all stop, pause and go back at the same place. What is told goes over
connections that may be silent for days and notice at once when a process has ended (gloo); gradients go from GPU to GPU
(NCCL), and every process gets the same sums, so that all take the same step.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from lora_studio.config.settings import Settings
from lora_studio.errors import MachineError
from lora_studio.training import checkpoint, devices

SILENCE = timedelta(days=7)
"""How long followers wait for the leader's word: through a queue, a long encoding, a pause."""
PATIENCE = timedelta(minutes=10)
"""How long an exchange of gradients may take: each process has the same work before it."""
LOOPBACK = "127.0.0.1"


class PeerLost(MachineError):
    """Another process of the run ended, or cannot be reached any more."""


class Command(IntEnum):
    """What the leader tells."""

    STEP = 0
    """Take the next step."""
    STATE = 1
    """Take over the state that follows."""
    END = 2
    """It is over."""


class World:
    """A run of one process: it has nobody to tell or to wait for."""

    rank = 0
    world = 1
    """How many processes there are."""
    place: int | None = None
    """Which of this machine's GPUs is this process's; None leaves it to the settings."""

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def part(self) -> slice:
        """The samples of each batch that are this process's."""
        return slice(self.rank, None, self.world)

    @property
    def stream(self) -> tuple[int, ...]:
        """A key that keeps what is drawn at random here apart from what others draw; empty for the leader."""
        return (self.rank,) if self.rank else ()

    def named(self, device: str) -> str:
        """All devices together, for people."""
        return f"{self.world} × {device}" if self.world > 1 else device

    def share(self, thing: Any) -> Any:
        """The leader's ``thing``."""
        return thing

    @contextmanager
    def first(self) -> Iterator[None]:
        """What stands within it the leader does first, then all others at once."""
        yield

    def meet(self, device: torch.device) -> None:
        """Makes the connections over which ``exchange`` goes, between devices of one kind."""

    def exchange(self, numbers: Tensor) -> None:
        """Puts the mean of all processes' ``numbers`` (N,) float32 in their place."""

    def tell(self, order: Command) -> None:
        """The leader's word to all others."""

    def give(self, state: dict[str, Any]) -> None:
        """Has the others take over the leader's state."""


class JoinedWorld(World):
    """One of several processes, which have found each other through ``store``."""

    def __init__(self, store: dist.Store, rank: int, world: int, place: int):
        self.rank, self.world, self.place = rank, world, place
        with _together():
            dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=SILENCE)
        self._numbers: dist.ProcessGroup | None = None

    def share(self, thing: Any) -> Any:
        box = [thing]
        with _together():
            dist.broadcast_object_list(box)
        return box[0]

    @contextmanager
    def first(self) -> Iterator[None]:
        if not self.leads:
            self.share(None)
        yield
        if self.leads:
            self.share(None)

    def meet(self, device: torch.device) -> None:
        backend = "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
        with _together():
            self._numbers = dist.new_group(backend=backend, timeout=PATIENCE)
        self.exchange(torch.zeros(1, device=device))  # connects, which could not be recorded in a graph

    def exchange(self, numbers: Tensor) -> None:
        with _together():
            dist.all_reduce(numbers, group=self._numbers)
        numbers.div_(self.world)

    def tell(self, order: Command) -> None:
        with _together():
            dist.broadcast(torch.tensor([order]), 0)
        if order is Command.END:
            self.leave()

    def hear(self) -> Command:
        """Waits for the leader's next word."""
        word = torch.zeros(1, dtype=torch.int64)
        with _together():
            dist.broadcast(word, 0)
        return Command(int(word))

    def give(self, state: dict[str, Any]) -> None:
        self.tell(Command.STATE)
        tensors: dict[str, Tensor] = {}
        self.share((checkpoint.flatten(state, tensors), tensors))

    def take(self, device: torch.device) -> dict[str, Any]:
        """The state that the leader gives after having told ``Command.STATE``."""
        tree, tensors = self.share(None)
        return checkpoint.unflatten(tree, {name: tensor.to(device) for name, tensor in tensors.items()})

    def leave(self, parted: bool = False) -> None:
        """Closes the connections. Where the others are gone (``parted``) nothing more is waited for. Leaving twice is
        leaving once.
        """
        if not dist.is_initialized():
            return
        if parted and self._numbers is not None and dist.get_backend(self._numbers) == "nccl":
            self._numbers.abort()
        dist.destroy_process_group()


@contextmanager
def joined(store: dist.Store | None = None, world: int = 0) -> Iterator[JoinedWorld]:
    """The leader of ``world`` processes that meet at ``store``; without one the process that the environment of
    torchrun, accelerate or the leader says that it is.

    Raises:
        PeerLost: another process ended, or was not found.
    """
    own = JoinedWorld(store, 0, world, 0) if store else _launched()
    try:
        yield own
    except BaseException:
        own.leave(parted=True)
        raise
    own.leave()


def _launched() -> JoinedWorld:
    with _together():
        store, rank, world = next(dist.rendezvous("env://", timeout=SILENCE))
    return JoinedWorld(store, rank, world, int(os.environ.get("LOCAL_RANK", 0)))


def host() -> dist.TCPStore:
    """Where the processes of this machine find each other: it listens, as they do, where other machines cannot reach
    it.
    """
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
    """The name of the network interface that leads back to this machine; empty where there is none or it cannot be
    chosen.
    """
    found = (
        []
        if os.name == "nt"
        else [
            name
            for name, addresses in psutil.net_if_addrs().items()
            if any(one.address == LOOPBACK for one in addresses)
        ]
    )
    return next(iter(found), "")


def require(settings: Settings) -> None:
    """Raises MachineError where this machine has fewer GPUs than the settings share the work between. A CPU can be
    shared where it is asked for by name.
    """
    if settings.machine.device != "cpu":
        devices.require(settings.machine.gpus)


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or devices.lost(error):
            raise
        first = str(error).partition("\n")[0]
        raise PeerLost(
            f"Another process of the run ended or cannot be reached: {first}",
            where="gpus",
            do="What was saved is kept: go on from there. Its own terminal or log says why it ended.",
        ) from error
