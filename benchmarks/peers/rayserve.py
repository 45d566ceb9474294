"""Ray Serve with dynamic batching, a replica a core.

PORT=8001 MODEL=models/mnist-projgan/1/model.onnx python -m benchmarks.peers.rayserve
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import ray
from fastapi import FastAPI, Response
from ray import serve

from benchmarks.peers import shared

app = FastAPI()


@serve.deployment(num_replicas=os.cpu_count() or 1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
@serve.ingress(app)
class Generator:
    """Batched generation."""

    def __init__(self) -> None:
        self.model = shared.session()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.0)
    async def run(self, asked: list[dict[str, Any]]) -> list[Any]:
        """Images for each request; off the loop, so that others can be taken meanwhile."""
        return await asyncio.to_thread(shared.run_together, self.model, asked)

    @app.get("/health/ready")
    async def ready(self) -> dict[str, str]:
        """Ready once a replica answers."""
        return {"status": "ok"}

    @app.post("/generate")
    async def generate(self, ask: shared.Ask) -> Response:
        """PNG or NPZ."""
        images = await self.run(ask.model_dump())
        content, kind = shared.encode(images, ask.label, ask.format)
        return Response(content, media_type=kind)


if __name__ == "__main__":
    cores = os.cpu_count() or 1
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    environment = {key: os.environ[key] for key in ("MODEL", "PYTHONPATH")}
    for attempt in range(3):
        try:
            ray.init(
                num_cpus=cores,
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"env_vars": environment},
                _node_ip_address="127.0.0.1",
            )
            break
        except Exception:
            # Its processes have 30 s to start, which other work on the machine may take from them.
            if attempt == 2:
                raise
            ray.shutdown()
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    # What the decorator makes of the class.
    deployment: Any = Generator
    serve.run(deployment.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
