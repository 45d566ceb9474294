"""Plain FastAPI with onnxruntime or with torch: what a developer writes in an afternoon.

    uvicorn benchmarks.peers.plain:onnx --factory
    uvicorn benchmarks.peers.plain:pytorch --factory

MODEL names the ONNX file; the endpoint is a ``def``, so that requests run in the framework's thread pool.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fastapi import FastAPI, Response
from numpy.typing import NDArray

from benchmarks.peers import shared
from benchmarks.peers.shared import Pixels


def _app(run: Callable[[NDArray[np.float32], NDArray[np.int64]], Pixels], z: int) -> FastAPI:
    app = FastAPI()

    @app.get("/health/ready")
    def ready() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/generate")
    def generate(ask: shared.Ask) -> Response:
        images = run(shared.noise(ask.seed, ask.n, z), np.full((ask.n, 1), ask.label, np.int64))
        body, media_type = shared.encode(images, ask.label, ask.format)
        return Response(body, media_type=media_type)

    return app


def onnx() -> FastAPI:
    """onnxruntime's session as it comes, shared by all threads."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
    z = session.get_inputs()[0].shape[1]

    def run(noise: NDArray[np.float32], label: NDArray[np.int64]) -> Pixels:
        images: Pixels = session.run(None, {"latent": noise, "label": label})[0]
        return images

    return _app(run, z)


def pytorch() -> FastAPI:
    """The same network in torch with weights as they are drawn (which cost the same), channels last, inference mode,
    one thread a request."""
    import torch

    from training import networks, recipes
    from training.sampling import to_uint8

    torch.set_num_threads(1)
    card = json.loads(Path(os.environ["MODEL"]).with_name("card.json").read_text(encoding="utf-8"))
    recipe = recipes.get(card["recipe"])
    shape = networks.Shape(card["z"], len(card["classes"]), card["image"]["channels"], card["image"]["height"])
    net, _ = networks.build(recipe.family, shape, recipe.width)
    net = net.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    low, high = recipe.image_range

    @torch.inference_mode()
    def run(noise: NDArray[np.float32], label: NDArray[np.int64]) -> Pixels:
        images = net(torch.from_numpy(noise), torch.from_numpy(label[:, 0]))
        pixels: Pixels = to_uint8(images, low, high).permute(0, 2, 3, 1).contiguous().numpy()
        return pixels

    return _app(run, recipe.z)
