"""Gradients over ranks: equal everywhere, and what one process with the whole batch has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from loop_kit import free_port
from torch import nn

from medcurate.errors import ConfigError
from medcurate.train.loop.reducer import GradientReducer
from medcurate.train.loop.world import World, joined


class _Net(nn.Module):
    """An encoder, a decoder, an embedding that only the first sample uses, and one that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))
        self.decoder = nn.Linear(8, 4)
        self.first = nn.Parameter(torch.ones(4))
        kernel = torch.arange(96.0).view(4, 6, 2, 2).contiguous(memory_format=torch.channels_last)
        self.kernel = nn.Parameter(kernel)  # of the first sample only, and not in row-major order
        self.never = nn.Parameter(torch.ones(3))

    def loss(self, inputs: torch.Tensor, numbers: list[int], *, detach: bool = False) -> torch.Tensor:
        total = torch.zeros(())
        for number in numbers:
            hidden = self.encoder(inputs[number])
            out = self.decoder(hidden.detach() if detach else hidden)
            total = total + (out * self.first if number == 0 else out).square().sum()
            if number == 0:
                total = total + (self.kernel * self.kernel.detach().sin()).sum()
        return total


def _reducer(net: _Net, world: World) -> GradientReducer:
    others = [*net.decoder.parameters(), net.first, net.kernel, net.never]
    return GradientReducer(world, list(net.encoder.parameters()), others, bucket_bytes=256)


def _gradients(net: _Net) -> dict[str, torch.Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}


def _inputs() -> torch.Tensor:
    return torch.randn(8, 8, generator=torch.Generator().manual_seed(1))


def _rank(rank: int, size: int, port: int, out: Path, pieces: int) -> None:
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    net, inputs = _Net(), _inputs()
    mine = list(range(8))[rank::size]
    parts = [mine[piece::pieces] for piece in range(pieces)]
    with joined("cpu", timeout_s=60) as world:
        reducer = _reducer(net, world)
        found = []
        for detach in (False, True):
            for part in parts[:-1]:
                net.loss(inputs, part, detach=detach).backward()
            with reducer.reduced(with_encoder=not detach):
                net.loss(inputs, parts[-1], detach=detach).backward()
            found.append(_gradients(net))
            assert net.kernel.grad is not None
            assert net.kernel.grad.stride() == net.kernel.stride()  # what fused optimisers take for granted
            net.zero_grad(set_to_none=True)
        assert world.total([rank, 1]) == [sum(range(size)), size]
        world.require_same("one", "value")
        with pytest.raises(ConfigError, match=f"value: not the same for all {size} processes"):
            world.require_same("another" if rank else "one", "value")
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], "a group outlives the block that joined it"
    torch.save(found, out / f"{rank}.pt")


@pytest.mark.parametrize(("size", "pieces"), [(2, 1), (4, 1), (2, 2)])
def test_every_rank_has_the_gradients_of_one_process_with_the_whole_batch(
    tmp_path: Path, size: int, pieces: int
) -> None:
    mp.spawn(_rank, args=(size, free_port(), tmp_path, pieces), nprocs=size)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(size)]
    alone = _Net()
    for step, detach in enumerate((False, True)):
        alone.zero_grad(set_to_none=True)
        alone.loss(_inputs(), list(range(8)), detach=detach).backward()
        for name, expected in _gradients(alone).items():
            shares = [found[step][name] for found in ranks]
            if expected is None:
                assert shares == [None] * size, name
                continue
            assert all(torch.equal(share, shares[0]) for share in shares), name
            torch.testing.assert_close(shares[0], expected, rtol=1e-5, atol=1e-6)


def test_one_process_keeps_its_gradients_untouched() -> None:
    net = _Net()
    reducer = _reducer(net, World(0, 1, torch.device("cpu")))
    with reducer.reduced(with_encoder=True):
        net.loss(_inputs(), [1, 2]).backward()
    assert net.first.grad is None
    assert net.decoder.weight.grad is not None
