"""Gradients over ranks: equal everywhere, and what one process with the whole batch has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from loop_kit import RECIPE, free_port, write_recipe
from stream_kit import small_dataset
from torch import nn

from medcurate.errors import ConfigError
from medcurate.train.config.load import load_recipe
from medcurate.train.loop import start
from medcurate.train.loop.reducer import GradientReducer
from medcurate.train.loop.session import Session
from medcurate.train.loop.start import Options, length_of, opened_stream
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


def _join(rank: int, size: int, port: int) -> None:
    """Be the process ``rank`` that torchrun would start."""
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(size),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)


def _rank(rank: int, size: int, port: int, out: Path, pieces: int) -> None:
    _join(rank, size, port)
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


def _count_traffic(rank: int, size: int, port: int, recipe: Path, data: Path, out: Path) -> None:
    """Write the bytes that ``rank`` gives to all-reduce in each optimiser step of a batch; they are still reduced."""
    _join(rank, size, port)
    sent: list[int] = []
    reduce = dist.all_reduce

    def counted(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        if options.get("group") is world.gradients:
            sent[-1] += tensor.numel() * tensor.element_size()
        return reduce(tensor, *args, **options)

    with joined("cpu", timeout_s=60) as world, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(out / "cache"))
        session = Session(load_recipe(str(recipe)), world)
        with opened_stream(session, Options(data=str(data), out=out, workers=0, device="cpu")) as stream:
            length, batch = length_of(session.recipe, stream), next(stream)
        patch.setattr(dist, "all_reduce", counted)
        sent.append(0)
        for _ in session.play(session.pieces(batch), length):
            sent.append(0)
    torch.save(sent[:-1], out / f"{rank}.pt")


@pytest.mark.parametrize("micro_batch", [0, 1])
def test_the_encoder_s_gradients_travel_in_the_one_step_that_trains_it(
    tmp_path: Path, micro_batch: int
) -> None:
    recipe = write_recipe(tmp_path, RECIPE.replace("[run]", f"[run]\nmicro_batch = {micro_batch}"))
    data = small_dataset(tmp_path / "data")
    mp.spawn(_count_traffic, args=(2, free_port(), recipe, data, tmp_path), nprocs=2)
    alone = Session(load_recipe(str(recipe)), World(0, 1, torch.device("cpu")))
    learning = {name: 4 * p.numel() for name, p in alone.sam.named_parameters() if p.requires_grad}
    encoder = sum(size for name, size in learning.items() if name.startswith("image_encoder."))
    assert encoder > sum(learning.values()) / 2
    others = sum(learning.values()) - encoder
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == [others + encoder, others, others]


def _checkpoint(run: Path, batches: int, record: str = "{}") -> Path:
    folder = run / "checkpoints" / f"step-{batches:08d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(record, encoding="utf-8")
    return folder


def _find(rank: int, size: int, port: int, runs: Path) -> None:
    """Look for the checkpoint to go on from in the folder as ``rank`` sees it."""
    _join(rank, size, port)
    start.SEEN_S = 0.1
    with joined("cpu", timeout_s=60) as world:

        def found(name: str) -> Path | None:
            return start.found_by_all(Options(data="", out=runs / name / str(rank)), world)

        assert found("none") is None
        assert found("listed late") == runs / "listed late" / str(rank) / "checkpoints" / "step-00000006"
        for name in ("elsewhere", "other content", "unseen by the first"):
            with pytest.raises(ConfigError, match="not the same for all 2 processes"):
                found(name)


def test_all_ranks_go_on_from_the_checkpoint_that_the_first_one_names(tmp_path: Path) -> None:
    for rank in range(2):
        _checkpoint(tmp_path / "listed late" / str(rank), 6)
        _checkpoint(tmp_path / "other content" / str(rank), 6, f'{{"loss": {rank}}}')
    _checkpoint(tmp_path / "listed late" / "1", 9)  # what the first rank does not see does not count
    _checkpoint(tmp_path / "elsewhere" / "0", 6)
    _checkpoint(tmp_path / "unseen by the first" / "1", 6)
    mp.spawn(_find, args=(2, free_port(), tmp_path), nprocs=2)


def test_one_process_keeps_its_gradients_untouched() -> None:
    net = _Net()
    reducer = _reducer(net, World(0, 1, torch.device("cpu")))
    with reducer.reduced(with_encoder=True):
        net.loss(_inputs(), [1, 2]).backward()
    assert net.first.grad is None
    assert net.decoder.weight.grad is not None
