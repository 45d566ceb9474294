"""Small runs on embedded data: seconds each, deterministic, one thread."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.onnx._internal.exporter import _registration

from training.data import Dataset, load
from training.run import Event, RunConfig, configure


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def one_registry() -> Iterator[None]:
    """The exporter makes its table of operators anew for each graph, which takes longer than our small graphs do."""
    with pytest.MonkeyPatch.context() as patch:
        registry = _registration.ONNXRegistry
        patch.setattr(registry, "from_torchlib", staticmethod(functools.cache(registry.from_torchlib)))
        yield


@pytest.fixture
def signals() -> Iterator[None]:
    """The training command listens to signals; what listened before does so again afterwards."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="session")
def few(digits: Dataset) -> Dataset:
    """Digits enough for the flagship's frozen networks, which look at all there are."""
    return digits.subset(torch.arange(600))


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Two classes of six grey 10x12 images."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(6):
            pixels = random.integers(0, 256, (10, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{index}.png")
    return tmp_path / "pets"


def silent(event: Event) -> None:
    """A reporter that tells nobody."""


def small(recipe: str, dataset: Dataset, images: int = 320, **more: object) -> RunConfig:
    """A few steps of a narrow network."""
    overrides = {"batch": 16, "width": 0.25, **(more.pop("overrides", None) or {})}  # type: ignore[dict-item]
    return configure(recipe, dataset, images=images, overrides=overrides, **more)  # type: ignore[arg-type]
