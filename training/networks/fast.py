"""Layers that compute what PyTorch's own do in less time on a CPU, and the allocator's settings.

Each has a plain counterpart, to which ``benchmarks/training.py`` compares it: ``nn.Dropout``; ``nn.Flatten`` and
``nn.Linear``; an ``nn.Conv2d`` over image and label maps.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.mlp import one_hot


class _Scale(torch.autograd.Function):
    """A product with constants, of which only they are kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Tensor, inplace: bool) -> Tensor:
        ctx.save_for_backward(factors)
        if not inplace:
            return x * factors
        ctx.mark_dirty(x)
        return x.mul_(factors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (factors,) = ctx.saved_tensors
        return grads[0] * factors, None, None


class Dropout(nn.Module):
    """As ``torch.nn.Dropout`` in law, several times as fast on a CPU.

    PyTorch draws a whole float a unit there; here a random byte decides, eight to a 64-bit draw, so ``p`` must be a
    multiple of 1/256. On other devices it is PyTorch's own.
    """

    def __init__(self, p: float, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p < 1 or (p * 256) % 1:
            raise ValueError(f"a dropout of {p} is not a multiple of 1/256 below 1")
        self.p, self.inplace = p, inplace

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p, True, self.inplace)
        bits = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        keep = bits.view(torch.uint8)[: x.numel()] >= int(self.p * 256)
        # Laid out as the features are, so that neither product walks against the memory.
        dense = torch.empty_like(x, device="meta")
        factors = keep.to(x.dtype).mul_(1 / (1 - self.p)).as_strided(dense.size(), dense.stride())
        kept: Tensor = _Scale.apply(x, factors, self.inplace)  # type: ignore[no-untyped-call]
        return kept

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Flatten(nn.Module):
    """Maps float32 [batch, channels, height, width] to rows [batch, height * width * channels]: the order in which
    ``channels_last`` has them in memory, so that no feature is copied. :class:`Dense` reads them."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


class Dense(nn.Linear):
    """``nn.Linear`` on square maps that :class:`Flatten` flattened, with the parameters of one on ``nn.Flatten``'s.

    The few weights are laid out as the many features are, and not the other way round; so no gradient walks against
    the memory.
    """

    def __init__(self, channels: int, edge: int, outputs: int) -> None:
        super().__init__(channels * edge * edge, outputs)
        self.maps = (channels, edge, edge)

    def forward(self, rows: Tensor) -> Tensor:
        weight = self.weight.unflatten(1, self.maps).permute(0, 2, 3, 1).flatten(1)
        return F.linear(rows, weight, self.bias)


class LabelMapConv2d(nn.Conv2d):
    """A convolution over an image and one constant map a class, 1 on the map of the image's label and 0 elsewhere.

    Parameters and results are those of an ``nn.Conv2d`` over the joined maps, which are never made: convolution is
    linear and a class's map is one number everywhere, so what it adds differs between positions only by how much of
    the patch lies in the padding, and is the same for all images of the class.
    """

    def __init__(self, channels: int, classes: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(channels + classes, outputs, kernel, stride, padding)
        self.classes = classes

    def forward(self, image: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        """float32 [batch, outputs, h, w] of images float32 [batch, channels, h, w] and labels int64 [batch]."""
        assert self.bias is not None
        assert isinstance(self.padding, tuple)
        pixels, size = image.shape[1], image.shape[2:]
        inside = F.unfold(image.new_ones(1, 1, *size), self.kernel_size, padding=self.padding, stride=self.stride)
        weights = self.weight[:, pixels:].permute(2, 3, 1, 0).flatten(2).flatten(0, 1)
        by_class = (inside[0].t() @ weights).unflatten(1, (self.classes, -1)) + self.bias
        x = F.conv2d(image, self.weight[:, :pixels], None, self.stride, self.padding)
        added = one_hot(label, self.classes) @ by_class.transpose(0, 1).flatten(1)
        x += added.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        return x


def keep_memory() -> None:
    """Ask glibc's allocator to keep what is freed, where there is one; else every step faults its features in anew."""
    mmap_threshold, trim_threshold, largest = -3, -1, 32 * 2**20
    with contextlib.suppress(AttributeError, OSError, TypeError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(mmap_threshold, largest)
        allocator.mallopt(trim_threshold, 2**31 - 1)
