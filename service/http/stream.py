"""Streamed answers whose work ends with the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.http.middleware import GONE


class Stream(StreamingResponse):
    """A streamed answer whose work ends with the client: hanging up closes the generator at once."""

    def __init__(
        self, first: bytes, rest: AsyncGenerator[bytes, None], headers: dict[str, str], media_type: str
    ) -> None:
        async def whole() -> AsyncGenerator[bytes, None]:
            yield first
            async for part in rest:
                yield part

        super().__init__(whole(), headers=headers, media_type=media_type)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end or until the client has gone. A failure on the way breaks the connection off."""
        async with aclosing(self._rest):
            sending = asyncio.ensure_future(self.stream_response(send))
            leaving = asyncio.ensure_future(self.listen_for_disconnect(receive))
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, leaving):
                    task.cancel()
                results = await asyncio.gather(sending, leaving, return_exceptions=True)
        if isinstance(results[0], asyncio.CancelledError | OSError):
            scope[GONE] = True
        if isinstance(results[0], Exception) and not isinstance(results[0], OSError):
            raise results[0]
