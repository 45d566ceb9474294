"""Inference elsewhere: engines whose runs are calls to a Triton, or to any server of the same protocol.

Seeds, labels, formats, access and caching stay here; what goes over the wire are latents and labels, and what comes
back are pixels, both as binary tensors. That server serves the same repository: versions are asked for by number, and
an answer that is not of the version, the type or the shape asked for is refused.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

import httpx
import numpy as np
from numpy.typing import NDArray

from ganserve.card import MAX_BATCH_SIZE, ModelCard
from service import protocol
from service.http.errors import DeadlineExceeded, Unavailable
from service.observe import tracing
from service.protocol import HEADER_LENGTH

CONNECT_SECONDS = 2.0
# Readiness is asked for by several probes; one question a second is enough.
PROBE_SECONDS = 1.0

log = logging.getLogger(__name__)


class Upstream:
    """The connections to one server; used by the lanes side by side.

    Args:
        address: ``triton://host:port``.
        timeout: seconds that a run may take.
        token: sent as a bearer token.
        transport: what carries the calls; tests put their own here.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 30.0,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self.client = httpx.Client(
            base_url=address.replace("triton://", "http://", 1),
            timeout=httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
            # As many connections as there are lanes; these wait for one another elsewhere.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30),
            headers={"Authorization": f"Bearer {token}"} if token else None,
            # A proxy of the environment is meant for the way out, not for the machine next door.
            trust_env=False,
            transport=transport,
        )
        self._lock = threading.Lock()
        self._asked = 0.0
        self._reason: str | None = None

    def close(self) -> None:
        """End the connections."""
        self.client.close()

    def unreachable(self) -> str | None:
        """Why nothing can be run just now; None if that server says that it is ready. Blocks."""
        with self._lock:
            if self._asked and time.monotonic() - self._asked < PROBE_SECONDS:
                return self._reason
            try:
                answer = self.client.get("/v2/health/ready", timeout=CONNECT_SECONDS)
                self._reason = None if answer.status_code == 200 else self._told("is not ready", answer)
            except httpx.HTTPError as error:
                self._reason = self._cannot(error)
            self._asked = time.monotonic()
            return self._reason

    def infer(self, path: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        """The answer to an inference.

        Raises:
            Unavailable: that server is not there, not ready, or refuses.
            DeadlineExceeded: no answer within the time of a run.
        """
        for attempt in (1, 2):
            try:
                answer = self.client.post(path, content=content, headers=tracing.outgoing() | headers)
                break
            except httpx.TimeoutException as error:
                if isinstance(error, httpx.ConnectTimeout):
                    raise Unavailable(self._cannot(error)) from error
                raise DeadlineExceeded(
                    f"the inference server {self.address} did not answer within {self.timeout:g} s"
                ) from error
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
                # It may have closed a connection that was kept; a run changes nothing, so it can be asked again.
                if attempt == 2:
                    raise Unavailable(self._cannot(error)) from error
            except httpx.HTTPError as error:
                raise Unavailable(self._cannot(error)) from error
        if answer.status_code == 200:
            return answer
        # It follows the same repository, but a promotion may reach it later than this process.
        reason = self._told("refused a run", answer)
        log.warning("%s", reason)
        raise Unavailable(reason, _retry_after(answer))

    def _cannot(self, error: Exception) -> str:
        return f"the inference server {self.address} cannot be reached ({str(error) or type(error).__name__})"

    def _told(self, what: str, answer: httpx.Response) -> str:
        try:
            reason = str(answer.json()["error"])
        except (ValueError, KeyError, TypeError):
            reason = "no reason told"
        return f"the inference server {self.address} {what} ({answer.status_code}: {reason[:300]})"


@dataclass(eq=False)
class RemoteEngine:
    """One version on another server; nothing is asked of it before the first run, so it may come later."""

    card: ModelCard
    upstream: Upstream = field(repr=False)
    max_rows: int
    provider: str = field(init=False)
    # Another process computes: nothing is proven here.
    exact: None = None

    def __post_init__(self) -> None:
        # config.pbtxt promises Triton no larger batch.
        self.max_rows = min(self.max_rows, MAX_BATCH_SIZE)
        self.provider = self.upstream.address

    def run(self, latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """As every engine; raises what :meth:`Upstream.infer` raises."""
        body, length = protocol.request(self.card, latent, label)
        answer = self.upstream.infer(
            f"/v2/models/{self.card.name}/versions/{self.card.version}/infer",
            body,
            {HEADER_LENGTH: str(length), "Content-Type": protocol.BINARY},
        )
        try:
            return protocol.images(answer.content, answer.headers[HEADER_LENGTH], self.card, len(latent))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise Unavailable(
                f"the inference server {self.upstream.address} gave no answer for {self.card.name} version "
                f"{self.card.version} that can be used ({error!s:.200})",
                retry_after=60,
            ) from error


def _retry_after(answer: httpx.Response) -> int:
    told = answer.headers.get("retry-after", "")
    return int(told) if told.isdecimal() and len(told) < 6 else 1
