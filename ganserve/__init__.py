"""Labelled, reproducible images: what callers use, and the common ground of the service and of training.

    client = ganserve.Client("http://127.0.0.1:8000")       # or AsyncClient
    client.generate(label=3, n=16, seed=42).save("grid.png")
    ganserve.Generator("models/mnist-projgan").generate(label=3, n=16, seed=42)   # the same bytes without a server
    ganserve.torch.Synthetic("models", n=60000)             # for PyTorch's data loaders, after import ganserve.torch

Each name is loaded when it is first used. The package imports neither side. Where do seeds become noise?
``latents.py``. What is a model on disk? ``repository.py`` and ``card.py``. What does a graph take and give?
``signature.py``. Which names do service and worker share? ``queue.py``. How can a call fail? ``errors.py``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganserve import errors
    from ganserve.client import AsyncClient, Client, Dataset, Job, Model
    from ganserve.generator import Generator
    from ganserve.images import Images
    from ganserve.verdict import Verdict

__all__ = ["AsyncClient", "Client", "Dataset", "Generator", "Images", "Job", "Model", "Verdict", "errors"]

_HOMES = {
    "AsyncClient": "ganserve.client",
    "Client": "ganserve.client",
    "Dataset": "ganserve.client",
    "Generator": "ganserve.generator",
    "Images": "ganserve.images",
    "Job": "ganserve.client",
    "Model": "ganserve.client",
    "Verdict": "ganserve.verdict",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("ganserve.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'ganserve' has no attribute {name!r}: it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
