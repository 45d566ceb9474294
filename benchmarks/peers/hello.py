"""The least that uvicorn can be asked for: an answer 304 with as many headers as ganserve's, and nothing looked at.

uvicorn benchmarks.peers.hello:app
"""

from __future__ import annotations

from typing import Any

_HEADERS = [
    (b"x-model", b"mnist-projgan"),
    (b"x-model-version", b"1"),
    (b"x-latent-recipe", b"philox-normal/v1"),
    (b"cache-control", b"no-cache"),
    (b"etag", b'"0123456789abcdef0123456789abcdef"'),
    (b"vary", b"Accept"),
    (b"x-seed", b"42"),
    (b"x-request-id", b"0123456789abcdef0123456789abcdef"),
]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Lifespan, and 304 for everything else."""
    if scope["type"] == "lifespan":
        while True:
            asked = (await receive())["type"]
            await send({"type": f"{asked}.complete"})
            if asked == "lifespan.shutdown":
                return
    status = 200 if scope["path"] == "/health/ready" else 304
    await send({"type": "http.response.start", "status": status, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b""})
