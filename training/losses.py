"""Adversarial losses and gradient penalties, as functions of scores; they know nothing of the training loop.

Scores are float32 [batch]: logits for ``bce``, ``hinge`` and ``relativistic``, critic values for ``wasserstein``;
[batch, heads] for ``hinge-heads``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Critic = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """The two sides of a game: ``discriminator(real, fake)`` and ``generator(fake, real)``, each a scalar.

    ``needs_real`` says that the generator's side looks at real scores too; ``probability`` that a sigmoid of the
    score is D(x), the probability that the image is real.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    needs_real: bool = False
    probability: bool = True


def _bce_d(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _bce_g(fake: Tensor, real: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


def _wasserstein_d(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


def _minus_mean(fake: Tensor, real: Tensor) -> Tensor:
    return -fake.mean()


def _hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def _heads_d(real: Tensor, fake: Tensor) -> Tensor:
    return (F.relu(1 - real).mean(0) + F.relu(1 + fake).mean(0)).sum()


def _heads_g(fake: Tensor, real: Tensor) -> Tensor:
    return -fake.mean(0).sum()


def _relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(fake - real).mean()


def _relativistic_g(fake: Tensor, real: Tensor) -> Tensor:
    return F.softplus(real - fake).mean()


LOSSES = {
    # Goodfellow et al. 2014, section 3: the non-saturating form.
    "bce": Loss(_bce_d, _bce_g),
    # Arjovsky et al. 2017, algorithm 1.
    "wasserstein": Loss(_wasserstein_d, _minus_mean, probability=False),
    # Lim and Ye 2017; Miyato et al. 2018, equations 16 and 17.
    "hinge": Loss(_hinge_d, _minus_mean, probability=False),
    # The same for each head of a discriminator, summed (Sauer et al. 2021, equation 2).
    "hinge-heads": Loss(_heads_d, _heads_g, probability=False),
    # Jolicoeur-Martineau 2018; Huang et al. 2024 (R3GAN), equation 2.
    "relativistic": Loss(_relativistic_d, _relativistic_g, needs_real=True, probability=False),
}


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """E[(|grad critic(x)| - 1)^2] at points between real and fake (Gulrajani et al. 2017, algorithm 1)."""
    alpha = torch.rand(real.shape[0], 1, 1, 1, device=real.device)
    between = torch.lerp(real, fake, alpha).requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def zero_centred_penalty(critic: Critic, images: Tensor) -> Tensor:
    """E[|grad critic(x)|^2] / 2 at the images: R1 on real ones, R2 on fake (Mescheder et al. 2018, equation 9)."""
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    penalty: Tensor = gradient.flatten(1).square().sum(1).mean() / 2
    return penalty
