"""Plain FastAPI with onnxruntime or with torch: what a developer writes in an afternoon.

    uvicorn benchmarks.peers.plain:inline --factory
    uvicorn benchmarks.peers.plain:threaded --factory
    uvicorn benchmarks.peers.plain:cores --factory
    uvicorn benchmarks.peers.plain:pytorch --factory

MODEL names the ONNX file.
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

Run = Callable[[NDArray[np.float32], NDArray[np.int64]], Pixels]


def _app(run: Run, z: int, *, inline: bool = False) -> FastAPI:
    app = FastAPI()

    def answer(ask: shared.Ask) -> Response:
        images = run(shared.noise(ask.seed, ask.n, z), np.full((ask.n, 1), ask.label, np.int64))
        body, media_type = shared.encode(images, ask.label, ask.format)
        return Response(body, media_type=media_type)

    async def on_loop(ask: shared.Ask) -> Response:
        return answer(ask)

    async def ready() -> dict[str, str]:
        return {"status": "ok"}

    app.get("/health/ready")(ready)
    app.post("/generate")(on_loop if inline else answer)
    return app


def _onnx(threads: int, *, inline: bool = False) -> FastAPI:
    session = shared.session(threads)

    def run(noise: NDArray[np.float32], label: NDArray[np.int64]) -> Pixels:
        images: Pixels = session.run(None, {"latent": noise, "label": label})[0]
        return images

    return _app(run, session.get_inputs()[0].shape[1], inline=inline)


def inline() -> FastAPI:
    """onnxruntime on the event loop, one thread: what costs least where each core has a process."""
    return _onnx(1, inline=True)


def threaded() -> FastAPI:
    """onnxruntime in the framework's thread pool, each run on one thread."""
    return _onnx(1)


def cores() -> FastAPI:
    """onnxruntime in the framework's thread pool, each run on all cores."""
    return _onnx(os.cpu_count() or 1)


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
