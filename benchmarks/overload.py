"""Open loop far above what is sustainable: what is accepted meets its deadline, the rest is refused early.

    python -m benchmarks.overload                                # 60 s at ten times the measured rate
    python -m benchmarks.overload --seconds 20 --times 10 --n 64

Requests leave on a clock of their own, whether or not earlier ones have been answered. The sustainable rate is measured
first, by a closed loop. Writes ``overload.json`` and ``overload.md``; exit status 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import uvloop

from benchmarks.serving import ROOT, memory_mb, served

HERE = Path(__file__).parent
DEADLINE = 5.0
# A client that is kept from its core sees late what it was answered, and the server closes what is idle for so long.
IDLE = {"GANSERVE_IDLE_TIMEOUT": "60"}
REUSED_SECONDS = 3.0


class Client(asyncio.Protocol):
    """One kept-alive connection; one request at a time."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[int] | None = None
        self.retry_after = 0
        self.used = time.perf_counter()
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """When to ask again, where that is told."""
        if name.lower() == b"retry-after":
            self.retry_after = int(value)

    def on_message_complete(self) -> None:
        """The whole answer is here."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(self.parser.get_status_code())
        self.parser = httptools.HttpResponseParser(self)

    def connection_lost(self, error: Exception | None) -> None:
        """No answer comes any more."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error or ConnectionError("closed"))

    async def ask(self, body: bytes) -> int:
        """The status of the answer."""
        self.answer = asyncio.get_running_loop().create_future()
        head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        self.transport.write(head + str(len(body)).encode() + b"\r\n\r\n" + body)
        return await self.answer


class Pool:
    """Idle connections; grows as an open loop needs."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[Client] = []
        # Each Retry-After of a refusal.
        self.retry_after: list[int] = []

    async def ask(self, n: int, seed: int) -> tuple[int | str, float]:
        """Status, or the name of the error, and seconds."""
        begun = time.perf_counter()
        try:
            # As any client must, it leaves alone a connection that the server may be about to close.
            while self.idle and begun - self.idle[-1].used > REUSED_SECONDS:
                self.idle.pop().transport.close()
            client = self.idle.pop() if self.idle else await self.open()
            status = await client.ask(b'{"n":%d,"seed":%d}' % (n, seed))
            client.used = time.perf_counter()
            if status == 429:
                self.retry_after.append(client.retry_after)
                client.retry_after = 0
            self.idle.append(client)
        except OSError as error:
            return type(error).__name__, time.perf_counter() - begun
        return status, time.perf_counter() - begun

    async def open(self) -> Client:
        """A new connection."""
        _, protocol = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", self.port)
        return protocol


async def closed(pool: Pool, n: int, seconds: float, clients: int) -> tuple[float, list[float]]:
    """Requests a second of a closed loop, and their latencies."""
    took: list[float] = []
    begun = time.perf_counter()
    end = begun + seconds

    async def client(index: int) -> None:
        seed = index * 10_000_000
        while time.perf_counter() < end:
            seed += 1000
            status, seconds_taken = await pool.ask(n, seed)
            if status != 200:
                raise RuntimeError(f"a request alone was answered with {status}")
            took.append(seconds_taken)

    await asyncio.gather(*(client(index) for index in range(clients)))
    return len(took) / (time.perf_counter() - begun), took


async def measure(port: int, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    """The sustainable rate, the overload, and what follows it."""
    pool, loop = Pool(port), asyncio.get_running_loop()
    rate, _ = await closed(pool, options.n, 4, 8)
    _, calm = await closed(pool, options.n, 2, 1)
    before = statistics.median(calm)
    told: list[tuple[int | str, float]] = []
    memory: list[float] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(seed: int) -> None:
        told.append(await pool.ask(options.n, seed))

    begun, sent, sampled = loop.time(), 0, 0.0
    while (now := loop.time() - begun) < options.seconds:
        while sent < now * rate * options.times:
            task = loop.create_task(one(sent * 1000))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        if now - sampled >= 1:
            sampled = now
            memory.append(memory_mb(pid, "VmRSS"))
        await asyncio.sleep(0.002)
    ended = loop.time()
    # Where this process had no turn for all of those seconds, it is the only one.
    memory.append(memory_mb(pid, "VmRSS"))
    told_last = pool.retry_after[-1] if pool.retry_after else 0
    # Who has been refused last and comes back as told is taken.
    accepted_after = None
    while accepted_after is None and loop.time() - ended < 30:
        asked = loop.time() - ended
        if (await pool.ask(options.n, 1))[0] == 200:
            accepted_after = asked
        await asyncio.sleep(0.02)
    recovered = None
    while loop.time() - ended < 30:
        if (await pool.ask(options.n, 1))[1] < 2 * before:
            recovered = loop.time() - ended
            break
        await asyncio.sleep(0.02)
    await asyncio.gather(*tasks)
    for client in pool.idle:
        client.transport.close()
    await asyncio.sleep(0.1)
    accepted = sorted(seconds for status, seconds in told if status == 200)
    refused = sorted(seconds for status, seconds in told if status == 429)
    steady = memory[min(5, len(memory) - 1)]
    return {
        "n": options.n,
        "seconds": options.seconds,
        "sustainable_per_second": rate,
        "sent_per_second": sent / options.seconds,
        "statuses": {str(status): count for status, count in Counter(status for status, _ in told).items()},
        "accepted_p50": float(np.percentile(accepted, 50)) if accepted else None,
        "accepted_p99": float(np.percentile(accepted, 99)) if accepted else None,
        "refused_p99": float(np.percentile(refused, 99)) if refused else None,
        "deadline": DEADLINE,
        "retry_after": [min(pool.retry_after, default=None), max(pool.retry_after, default=None)],
        "retry_after_last": told_last,
        "accepted_after": accepted_after,
        "memory_steady_mb": steady,
        "memory_peak_after_mb": max(memory[min(5, len(memory) - 1) :]),
        "latency_before": before,
        "recovered_after": recovered,
    }


def broken(result: dict[str, Any]) -> list[str]:
    """The promises that this result breaks."""
    found = []
    others = {status: count for status, count in result["statuses"].items() if status not in ("200", "429")}
    if others:
        found.append(f"other answers than 200 and 429: {others}")
    if result["accepted_p99"] is None or result["accepted_p99"] > result["deadline"]:
        found.append("accepted requests miss the deadline at p99")
    if 0 in result["retry_after"]:
        found.append("a refusal did not tell when to ask again")
    if result["accepted_after"] is None or result["accepted_after"] > max(1, result["retry_after_last"]):
        found.append("who was refused last and came back as told was refused again")
    if result["memory_peak_after_mb"] > 1.1 * result["memory_steady_mb"]:
        found.append("memory grew by more than 10 %")
    if result["recovered_after"] is None or result["recovered_after"] > 2:
        found.append("latency was not back to normal within 2 s")
    return found


def main() -> int:
    """Serve, overload, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "mnist-projgan" / "1" / "model.onnx")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--n", type=int, default=64)
    options = parser.parse_args()
    os.environ |= {"GANSERVE_REQUEST_TIMEOUT": str(DEADLINE), **IDLE}
    with served("ganserve", options.model.resolve()) as (port, pid, _):
        result = uvloop.run(measure(port, pid, options))
    result["broken"] = broken(result)
    (HERE / "overload.json").write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        "# Overload",
        "",
        f"Open loop for {options.seconds:g} s at {options.times:g} times the sustainable rate, n = {options.n}, "
        f"deadline {DEADLINE:g} s, client on the same {os.cpu_count()} cores.",
        "",
        "| | |\n|---|---|",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in result.items() if name not in ("n", "seconds")),
        "",
        "Made by `python -m benchmarks.overload`.",
    ]
    (HERE / "overload.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return int(bool(result["broken"]))


if __name__ == "__main__":
    raise SystemExit(main())
