"""Noise in, images out: latents for a training step, and pictures of a generator for people and judges."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ganserve.latents import consecutive, latents
from training.recipes import Recipe


def draw_latents(recipe: Recipe, rows: int, device: torch.device) -> Tensor:
    """float32 [rows, z] of the recipe's distribution, from torch's own random state (training noise only)."""
    if recipe.latent.startswith("philox-uniform"):
        return torch.rand(rows, recipe.z, device=device) * 2 - 1
    return torch.randn(rows, recipe.z, device=device)


def to_uint8(image: Tensor, low: float, high: float) -> Tensor:
    """The recipe's range scaled to 0..255, rounded and clipped."""
    return ((image.float() - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def forked(device: torch.device) -> AbstractContextManager[None]:
    """Leaves torch's random state, that of the device too, as it was."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


class Renderer:
    """Images uint8 from a generator in evaluation mode, from noise that is the same at every call."""

    def __init__(self, net: nn.Module, recipe: Recipe, classes: int, device: torch.device) -> None:
        self.net, self.recipe, self.classes, self.device = net, recipe, classes, device

    def balanced(self, n: int) -> tuple[Tensor, Tensor | None]:
        """``n`` images uint8 [n, c, h, w] of fixed seeds, and their labels in turn (None if unconditional)."""
        labels = torch.arange(n) % self.classes if self.classes else None
        return self(self.noise(n), labels), labels

    def noise(self, n: int, first: int = 0) -> Tensor:
        """float32 [n, z]: the published latents of seeds ``first`` on."""
        return torch.from_numpy(latents(self.recipe.latent, consecutive(first, n), self.recipe.z))

    @torch.no_grad()
    def __call__(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        low, high = self.recipe.image_range
        parts = []
        for start in range(0, len(noise), 500):
            label = None if labels is None else labels[start : start + 500].to(self.device)
            image = self.net(noise[start : start + 500].to(self.device), label)
            parts.append(to_uint8(image, low, high).cpu())
        return torch.cat(parts)
