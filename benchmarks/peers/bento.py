"""BentoML with adaptive batching, a worker a core.

    MODEL=models/mnist-projgan/1/model.onnx bentoml serve benchmarks.peers.bento:Front --port 8001

The public service takes a request and calls a batching one, as its documentation shows; that one runs in processes of
its own.
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
from fastapi import FastAPI, Response

from benchmarks.peers import shared

app = FastAPI()


@bentoml.service(workers=os.cpu_count() or 1, traffic={"timeout": 30})
class Runner:
    """Runs of several requests."""

    def __init__(self) -> None:
        self.model = shared.session()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=16, max_latency_ms=30000)
    def run(self, asked: list[dict[str, Any]]) -> list[bytes]:
        """An encoded answer for each request."""
        images = shared.run_together(self.model, asked)
        return [shared.encode(part, ask["label"], ask["format"])[0] for part, ask in zip(images, asked, strict=True)]


@bentoml.service(traffic={"timeout": 30})
@bentoml.asgi_app(app)
class Front:
    """HTTP."""

    runner = bentoml.depends(Runner)

    @app.get("/health/ready")
    async def ready(self) -> dict[str, str]:
        """Ready when one image can be made."""
        await self.runner.to_async.run([{"label": 0, "n": 1, "seed": 0, "format": "png"}])
        return {"status": "ok"}

    @app.post("/generate")
    async def generate(self, ask: shared.Ask) -> Response:
        """PNG or NPZ."""
        made = await self.runner.to_async.run([ask.model_dump()])
        return Response(made[0], media_type="image/png" if ask.format == "png" else "application/x-npz")
