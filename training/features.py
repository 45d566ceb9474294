"""Frozen features of images: convolutions that were taught once, and then belong to no optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Convolution = tuple[int, int, int]  # features, kernel, stride
# The share of a class's real images whose margins may be smaller than what is clear.
UNCLEAR = 0.02


class Taught(nn.Module):
    """A discriminator that looks through frozen features, which are taught before a run's first step."""

    def teach(
        self, images: Tensor, labels: Tensor, *, seed: int, shown: int, mirror: bool, guidance: float = 0.0
    ) -> None:
        """Train them on uint8 [n, c, h, w] and labels int64 [n], showing them ``shown`` images at most, mirrored or
        not. From then on what they tell of an image's class counts among the scores with the weight ``guidance``."""
        raise NotImplementedError


class Margins(nn.Module):
    """The last layer of a taught classifier, which tells how clearly an image is of its class.

    An image's margin is the logit of its class over the best other one, in deviations of the real ones'.
    """

    weight: Tensor
    bias: Tensor
    clear: Tensor

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(classes, features))
        self.register_buffer("bias", torch.zeros(classes))
        # The least margin of each class that is clear enough.
        self.register_buffer("clear", torch.zeros(classes))

    @torch.no_grad()
    def know(self, last: nn.Linear, features: Tensor, labels: Tensor) -> None:
        """Take over the layer, and the margins of real images' features float32 [n, features]."""
        self.weight.copy_(last.weight)
        self.bias.copy_(last.bias)
        scale = self.margin(features, labels).std().clamp_min(1e-6)
        self.weight.div_(scale)
        self.bias.div_(scale)
        margin = self.margin(features, labels)
        for label in labels.unique().tolist():
            self.clear[label] = margin[labels == label].quantile(UNCLEAR)

    def margin(self, features: Tensor, label: Tensor) -> Tensor:
        """float32 [n]."""
        logits = F.linear(features, self.weight, self.bias)
        own = logits.gather(1, label[:, None])
        return (own - logits.scatter(1, label[:, None], -torch.inf).amax(1, keepdim=True)).squeeze(1)

    def lacking(self, features: Tensor, label: Tensor) -> Tensor:
        """By how much margins fall short of clear ones: float32 [n], 0 where they do not."""
        return F.relu(self.clear[label] - self.margin(features, label))


class Features(nn.Module):
    """Convolutions with ReLU whose weights are buffers: they are taught once, then no optimiser sees them."""

    def __init__(self, channels: int, plan: Sequence[Convolution]) -> None:
        super().__init__()
        self.plan, before = plan, channels
        for index, (after, kernel, _) in enumerate(plan):
            self.register_buffer(f"weight{index}", torch.empty(after, before, kernel, kernel).normal_(std=0.05))
            self.register_buffer(f"bias{index}", torch.zeros(after))
            before = after

    def forward(self, image: Tensor) -> list[Tensor]:
        """Each stage's float32 [batch, features, edge, edge] of images in tanh's range."""
        stages, x = [], image
        for index, (_, _, stride) in enumerate(self.plan):
            x = F.relu(F.conv2d(x, self.get_buffer(f"weight{index}"), self.get_buffer(f"bias{index}"), stride, 1))
            stages.append(x)
        return stages

    @torch.no_grad()
    def load(self, stages: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> None:
        """Take over taught convolutions, each with its batch norm folded in."""
        for index, (convolution, norm) in enumerate(stages):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            self.get_buffer(f"weight{index}").copy_(convolution.weight * scale[:, None, None, None])
            self.get_buffer(f"bias{index}").copy_(norm.bias - norm.running_mean * scale)
