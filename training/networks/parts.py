"""Batch norm for a batch of parts that must not know of each other, such as real and generated images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d``; where :func:`in_parts` says so, each part of a batch has its own mean and variance,
    and the running averages see one part after the other, as if the network had been called for each."""

    parts = 1

    def forward(self, input: Tensor) -> Tensor:
        if self.parts == 1:
            return super().forward(input)
        whole = super().forward
        return torch.cat([whole(part) for part in input.chunk(self.parts)])


@contextmanager
def in_parts(network: nn.Module, count: int) -> Iterator[None]:
    """While in it, batches for ``network`` are ``count`` parts of one size, one after the other.

    Raises:
        TypeError: the network has a batch norm that knows no parts.
    """
    norms: list[BatchNorm2d] = []
    for module in network.modules():
        if isinstance(module, BatchNorm2d):
            norms.append(module)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise TypeError(f"{type(module).__name__} would mix the parts of a batch: take {__name__}.BatchNorm2d")
    for norm in norms:
        norm.parts = count
    try:
        yield
    finally:
        for norm in norms:
            norm.parts = 1
