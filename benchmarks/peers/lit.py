"""LitServe with batching, a worker a core, as its documentation recommends for work that is bound by the CPU.

PORT=8001 MODEL=models/mnist-projgan/1/model.onnx python -m benchmarks.peers.lit
"""

from __future__ import annotations

import os
from typing import Any

import litserve
from fastapi import Response

from benchmarks.peers import shared


class Generator(litserve.LitAPI):  # type: ignore[misc]
    """Batched generation; PNG or NPZ is made in the worker."""

    def setup(self, device: str) -> None:
        """Load the network in each worker."""
        self.model = shared.session()

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """The request as it is; an annotation here would be read as a schema."""
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Requests have sizes of their own, so they are joined in the run."""
        return inputs

    def predict(self, x: Any) -> Any:
        """Images and how they are to be encoded, for each request."""
        asked = x if isinstance(x, list) else [x]
        made = list(zip(shared.run_together(self.model, asked), asked, strict=True))
        return made if isinstance(x, list) else made[0]

    def unbatch(self, output: Any) -> Any:
        """As they come."""
        return output

    def encode_response(self, output: Any) -> Response:
        """PNG or NPZ."""
        images, ask = output
        content, kind = shared.encode(images, ask["label"], ask.get("format", "png"))
        return Response(content, media_type=kind)


if __name__ == "__main__":
    api = Generator(max_batch_size=16, batch_timeout=0.001, api_path="/generate")
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=os.cpu_count() or 1, healthcheck_path="/health/ready"
    )
    server.run(port=int(os.environ["PORT"]), host="127.0.0.1", generate_client_file=False, log_level="warning")
