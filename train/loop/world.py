"""The processes of one run as torchrun starts them, and what they tell each other outside of gradients."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import xxhash
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from medcurate.errors import ConfigError, MedcurateError
from medcurate.train.place import own_place, require_meeting_point

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


_POLL_S = 0.02


class PeerLost(MedcurateError):
    """Another process of the run has ended while this one waited for it."""


@dataclass(slots=True)
class World:
    """This process among ``size`` others; ``rank`` 0 writes what is shared.

    ``gradients``: the group that gradients travel in (NCCL on GPUs, gloo on CPUs), ``control``: a gloo group for
    small facts that the host needs at once; both None where there is one process, and once ``joined`` is left.
    What goes through ``control`` raises PeerLost where another process has ended; gradients go by ``others_reached``.
    """

    rank: int
    size: int
    device: torch.device
    gradients: ProcessGroup | None = None
    control: ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.rank == 0

    def total(self, values: Sequence[int]) -> list[int]:
        """The sum of every value over all ranks, modulo 2**64 as signed 64-bit integers add."""
        facts = torch.tensor(list(values), dtype=torch.int64)
        self._together(dist.all_reduce, facts)
        return [int(value) for value in facts]

    def any(self, flags: torch.Tensor) -> torch.Tensor:
        """Whether a flag is set on any rank. ``flags`` uint8 (n,), on the CPU."""
        self._together(dist.all_reduce, flags, op=dist.ReduceOp.MAX)
        return flags

    def require_same(self, value: str, what: str) -> None:
        """Raise ConfigError, on all ranks, unless all gave the same ``value``; ``what``: the thing that it tells of."""
        number = xxhash.xxh3_64_intdigest(value.encode()) >> 1
        ends = torch.tensor([number, -number], dtype=torch.int64)
        self._together(dist.all_reduce, ends, op=dist.ReduceOp.MAX)
        if int(ends[0]) != -int(ends[1]):
            raise ConfigError(
                f"{what}: not the same for all {self.size} processes. Start all with the same command, on files "
                "that every machine sees alike (a shared file system, or a URL)."
            )

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self._together(dist.barrier)

    def _together(self, collective: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Do ``collective`` with all others. Raises PeerLost where one of them cannot be reached any more."""
        if self.control is None:
            return
        with others_reached(self.size):
            collective(*arguments, group=self.control, **options)


@contextmanager
def others_reached(size: int) -> Iterator[None]:
    """The body talks with the others of ``size`` processes. Raises PeerLost where one cannot be reached any more."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(
            f"another of the {size} processes has ended; it says why, or its launcher does. The same command goes on "
            "from the last checkpoint once that is mended."
        ) from error


@contextmanager
def joined(device: str = "auto", timeout_s: float = 600.0) -> Iterator[World]:
    """Join the processes that torchrun started (by its environment), or be the only one.

    ``device``: "auto" (a GPU where there is one), "cpu" or "cuda". Raises ConfigError where the device is not there, or
    the environment is not that of a process of a run.
    """
    place = own_place()
    chosen, size = own_device(device, place.local_rank), place.size
    if size == 1:
        yield World(rank=0, size=1, device=chosen)
        return
    require_meeting_point()
    limit = timedelta(seconds=timeout_s)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    with others_reached(size):
        store, rank, _ = next(rendezvous("env://", timeout=limit))
        own = _own_part(store, rank, size, timeout_s)
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=limit)
    world = World(rank, size, chosen)
    try:
        with others_reached(size):
            world.control = dist.new_group(backend="gloo", timeout=limit)
        world.gradients = dist.group.WORLD
        yield world
    finally:
        # A group ends with its last reference. One that lives until the interpreter ends may abort the process then:
        # its threads still hold tensors and want the interpreter's lock to let go of them.
        world.gradients = world.control = None
        dist.destroy_process_group()


def _own_part(store: Store, rank: int, size: int, timeout_s: float) -> Store:
    """The part of ``store`` that these processes alone use. Raises TimeoutError where not all come.

    torchrun may keep one store for all attempts of a run, where ranks would find the addresses of the dead, and its
    count of attempts may differ between nodes. So each process asks under a name that nobody had before, and rank 0
    answers with the part's.
    """
    store = PrefixStore("medcurate", store)
    if rank:
        own = uuid.uuid4().hex
        store.set(f"ask/{rank}", own)
        part = store.get(f"answer/{own}").decode()  # waits for it
        store.add(f"{part}/came", 1)
        return PrefixStore(part, store)
    part, until = uuid.uuid4().hex, time.monotonic() + timeout_s
    while store.add(f"{part}/came", 0) < size - 1:
        for other in range(1, size):
            if store.check([f"ask/{other}"]):
                store.set(f"answer/{store.get(f'ask/{other}').decode()}", part)
        if time.monotonic() > until:
            raise TimeoutError(f"not all of {size} processes came within {timeout_s:.0f} s")
        time.sleep(_POLL_S)
    return PrefixStore(part, store)


def leave_cores(device: torch.device, workers: int) -> None:
    """Compute on no more cores than the ``workers`` that read data leave: threads that wait for a lost one spin.

    On a processor, another number of threads may round sums otherwise; a GPU's work is not touched.
    """
    if device.type == "cpu":
        free = len(os.sched_getaffinity(0)) - workers
        torch.set_num_threads(max(min(torch.get_num_threads(), free), 1))


def device_of(name: str) -> torch.device:
    """Where to compute: ``name`` is auto (a GPU where there is one), cpu or cuda. Raises ConfigError."""
    if name not in {"auto", "cpu", "cuda"}:
        raise ConfigError(f'device "{name}" is unknown; known: auto, cpu, cuda')
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no GPU here that torch can use; give --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def own_device(name: str, local_rank: int) -> torch.device:
    """That of process ``local_rank`` of this machine: one GPU each. Raises ConfigError."""
    device = device_of(name)
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU: there are {count}. "
            "Start as many processes as there are GPUs, or give --device cpu."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
