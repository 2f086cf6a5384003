"""Gradients summed over ranks, bucket by bucket while the backward pass still runs.

Not DistributedDataParallel: one batch of the interactive recipe makes nine optimiser steps, the encoder's
parameters take part in one of them, and which embeddings of the prompt encoder are used depends on the prompts
that were drawn. DDP would either walk the graph for unused parameters in every step or reduce the adapters'
gradients nine times. Losses are summands of the global batch's loss, so gradients are summed, not averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed as dist
from torch import nn

from medcurate.train.loop.world import World, others_reached

BUCKET_BYTES = 25 << 20


@dataclass(slots=True)
class _Bucket:
    parameters: list[nn.Parameter]
    waiting: int = 0
    flat: torch.Tensor | None = None
    work: dist.Work | None = None
    used: list[bool] = field(default_factory=list)


class GradientReducer:
    """Sums the gradients of two groups of parameters over all ranks.

    ``encoder``: parameters that take part only in steps that train the image encoder; ``others``: in all steps.
    After ``reduced`` every rank holds equal gradients: the sum over ranks where any rank has one, None elsewhere,
    exactly as one process with the whole batch would have them.
    """

    def __init__(
        self,
        world: World,
        encoder: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        *,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self._world = world
        # Gradients arrive from the last layer to the first, the decoder's before the encoder's.
        self._others = list(_buckets(others, bucket_bytes))
        self._encoder = list(_buckets(encoder, bucket_bytes))
        self._active: list[_Bucket] = []
        self._next = 0
        if world.size > 1:
            for bucket in [*self._others, *self._encoder]:
                for parameter in bucket.parameters:
                    parameter.register_post_accumulate_grad_hook(partial(self._arrived, bucket))  # type: ignore[no-untyped-call]

    @contextmanager
    def reduced(self, *, with_encoder: bool) -> Iterator[None]:
        """Around the last backward pass of an optimiser step; gradients are summed when it ends.

        Earlier backward passes of the step (accumulation) run outside and cost no traffic. Raises PeerLost.
        """
        if self._world.size == 1:
            yield
            return
        self._active = [*self._others, *(self._encoder if with_encoder else ())]
        self._next = 0
        for bucket in self._active:
            bucket.waiting = len(bucket.parameters)
        try:
            yield
            self._finish()
        finally:
            self._active = []

    def _arrived(self, bucket: _Bucket, _: torch.Tensor) -> None:
        bucket.waiting -= 1
        if self._active:
            self._launch_complete()

    def _launch_complete(self) -> None:
        """Send complete buckets, in the order that is the same on every rank, so that collectives match."""
        while self._next < len(self._active) and self._active[self._next].waiting <= 0:
            self._launch(self._active[self._next])
            self._next += 1

    def _launch(self, bucket: _Bucket) -> None:
        bucket.used = [parameter.grad is not None for parameter in bucket.parameters]
        pieces = [
            torch.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.flatten()
            for parameter in bucket.parameters
        ]
        bucket.flat = torch.cat(pieces)
        with others_reached(self._world.size):
            bucket.work = dist.all_reduce(bucket.flat, group=self._world.gradients, async_op=True)

    def _finish(self) -> None:
        for bucket in self._active[self._next :]:
            self._launch(bucket)
        flags = torch.tensor([used for bucket in self._active for used in bucket.used], dtype=torch.uint8)
        anywhere = iter(self._world.any(flags).tolist())
        for bucket in self._active:
            assert bucket.work is not None
            with others_reached(self._world.size):
                bucket.work.wait()
            _spread(bucket, [bool(next(anywhere)) for _ in bucket.parameters])


def _spread(bucket: _Bucket, used: Sequence[bool]) -> None:
    """Write the sums of ``bucket``, which have come, back into its parameters' gradients."""
    assert bucket.flat is not None
    sizes = [parameter.numel() for parameter in bucket.parameters]
    for parameter, piece, some in zip(bucket.parameters, torch.split(bucket.flat, sizes), used, strict=True):
        if not some:
            parameter.grad = None
        elif parameter.grad is None:
            # In the parameter's own memory format: fused kernels walk both in storage order.
            parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(piece.view_as(parameter))
        else:
            parameter.grad.copy_(piece.view_as(parameter))
    bucket.flat = bucket.work = None


def _buckets(parameters: Sequence[nn.Parameter], bucket_bytes: int) -> Iterator[_Bucket]:
    """Neighbours in reverse order, of one dtype, at most ``bucket_bytes`` together (or one alone)."""
    members: list[nn.Parameter] = []
    size = 0
    for parameter in reversed(parameters):
        more = parameter.numel() * parameter.element_size()
        if members and (size + more > bucket_bytes or parameter.dtype != members[0].dtype):
            yield _Bucket(members)
            members, size = [], 0
        members.append(parameter)
        size += more
    if members:
        yield _Bucket(members)
