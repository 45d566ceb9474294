"""A GPU against the CPU and against itself without HTTP: one call on a machine that has one.

    GANSERVE_DEVICE=cuda python -m benchmarks.gpu        # writes gpu.json and gpu.md
    python -m benchmarks.gpu --provider cpu --seconds 0.3   # rehearsal on any machine: prints, and writes nothing

First the pixels: those of the device against the CPU's, in every class, and those of one row in every batch it may come
in; nothing is timed where they are wrong. Then images a second of loops without HTTP: onnxruntime's bare runs, and the
engine's, on its own thread and padded; and of the service, under requests that fill it. Then latencies: of a run, and
of a request.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvloop
from numpy.typing import NDArray

from benchmarks.overload import Pool, closed
from benchmarks.serving import ROOT, served
from ganserve import signature
from ganserve.card import ModelCard
from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from service.inference.engine import CUDA_BUCKETS, CUDA_OPTIONS, OnnxEngine, Placement, providers

HERE = Path(__file__).parent
# Kernels of another device round elsewhere; more than this is another picture.
TOLERANCE = 2

Rows = tuple[NDArray[np.float32], NDArray[np.int64] | None]


def rows(engine: OnnxEngine, n: int, seed: int = 0) -> Rows:
    """Latents of consecutive seeds, the classes in turn."""
    card = engine.card
    label = np.arange(n, dtype=np.int64) % len(card.classes) if card.conditional else None
    return latents(card.latent_recipe, consecutive(seed, n), card.z), label


def pixels(device: OnnxEngine, cpu: OnnxEngine) -> dict[str, Any]:
    """How far the device is from the CPU, and whether a row's pixels depend on its batch."""
    apart, differ, total = 0, 0, 0
    for index in range(8):
        n = min(64, device.max_rows)
        noise, label = rows(device, n, index * 64)
        ours = device.run(noise, label).astype(int)
        parts = range(0, n, cpu.max_rows)
        theirs = np.concatenate(
            [cpu.run(noise[i : i + 32], None if label is None else label[i : i + 32]) for i in parts]
        )
        distance = np.abs(ours - theirs)
        apart, differ, total = max(apart, int(distance.max())), differ + int((distance > 0).sum()), total + ours.size
    noise, label = rows(device, device.max_rows)
    whole = device.run(noise, label)
    same = all(
        np.array_equal(device.run(noise[:n], None if label is None else label[:n]), whole[:n])
        for n in (1, 2, 7, 33, 64, device.max_rows)
        if n <= device.max_rows
    )
    return {"largest_difference": apart, "share_that_differs": differ / total, "any_batch_same": same}


def rate(run: Callable[[], Any], images: int, seconds: float) -> float:
    """Images a second of a loop."""
    for _ in range(3):
        run()
    begun, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds:
        run()
        count += 1
    return count * images / spent


def latency(run: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Percentiles in ms."""
    took = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        run()
        took.append((time.perf_counter() - begun) * 1000)
    return {f"p{p}": float(np.percentile(took, p)) for p in (50, 99)}


def loops(name: str, repository: Repository, provider: str, seconds: float) -> dict[str, Any]:
    """Images a second without HTTP, by batch size: bare runs, and the engine's."""
    card, content = repository.read(name, 1)
    options: list[Any] = [("CUDAExecutionProvider", CUDA_OPTIONS)] if provider == "cuda" else []
    bare = onnxruntime.InferenceSession(content, providers=[*options, "CPUExecutionProvider"])
    engine = placed(card, content, provider)
    found: dict[str, Any] = {}
    # Where pixels depend on the batch, the engine keeps one size only.
    for n in (size for size in CUDA_BUCKETS if size <= engine.max_rows):
        noise, label = rows(engine, n)
        feed = signature.feeds(card, noise, label)
        found[str(n)] = {
            "bare": rate(partial(bare.run, None, feed), n, seconds),
            "engine": rate(partial(engine.run, noise, label), n, seconds),
        }
    return {
        "pixels": pixels(engine, OnnxEngine.open(card, content)),
        "images_per_second": found,
        "sizes": list(engine.buckets),
        "run_ms": {str(n): latency(partial(engine.run, *rows(engine, n)), seconds) for n in (1, 16)},
    }


def placed(card: ModelCard, content: bytes, provider: str) -> OnnxEngine:
    """The engine of a device, with the batch sizes of CUDA on every one."""
    return OnnxEngine.open(card, content, Placement(provider, buckets=CUDA_BUCKETS))  # type: ignore[arg-type]


async def _requests(port: int, seconds: float) -> dict[str, Any]:
    pool = Pool(port)
    await closed(pool, 16, 1, 4)
    found: dict[str, Any] = {}
    for n, clients in ((16, 32), (256, 4)):
        per_second, _ = await closed(pool, n, 2 * seconds, clients)
        found[f"n{n}c{clients}"] = {"images_per_second": per_second * n}
    for n in (1, 16):
        _, took = await closed(pool, n, seconds, 1)
        found[f"n{n}c1"] = {f"p{p}": float(np.percentile(took, p)) * 1000 for p in (50, 99)}
    return found


def device_name(provider: str) -> str:
    """What nvidia-smi calls the GPU; the processor's architecture without one."""
    if provider == "cpu":
        return f"CPU ({platform.machine()}, {os.cpu_count()} cores)"
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    out = [f"{record['device']}, onnxruntime {record['onnxruntime']}, Python {record['python']}.\n"]
    for name, told in record["models"].items():
        seen = told["pixels"]
        out.append(
            f"## {name}\n\nAgainst the CPU: at most {seen['largest_difference']} of 255 apart, "
            f"{seen['share_that_differs']:.4%} of the pixels differ. A row's pixels are the same in any batch: "
            f"{'yes' if seen['any_batch_same'] else 'NO'}. Sizes in use: {told['sizes']}.\n"
        )
        out.append("| batch | bare runs | the engine's |\n|---|---|---|")
        for size, row in told["images_per_second"].items():
            out.append(f"| {size} | {row['bare']:.0f} | {row['engine']:.0f} |")
        best = max(row["engine"] for row in told["images_per_second"].values())
        out.append("\nImages a second, without HTTP. Over HTTP:\n\n| case | |\n|---|---|")
        for case, row in told["served"].items():
            if "images_per_second" in row:
                value = row["images_per_second"]
                out.append(f"| {case} | {value:.0f} images/s, {value / best:.2f} of the engine's loop |")
            else:
                run = told["run_ms"][case.removeprefix("n").partition("c")[0]]
                out.append(
                    f"| {case} | p50 {row['p50']:.2f} ms, p99 {row['p99']:.2f} ms; the run alone {run['p50']:.2f} ms, "
                    f"{run['p99']:.2f} ms |"
                )
        out.append("")
    return "\n".join(out)


def main() -> int:
    """Pixels, loops, requests; exit status 1 where the pixels are wrong, 2 without the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models", nargs="*", default=["mnist-projgan", "mnist-dcgan"])
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    try:
        providers(options.provider)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ["GANSERVE_DEVICE"] = options.provider
    repository = Repository(ROOT / "models")
    record: dict[str, Any] = {
        "device": device_name(options.provider),
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
        "models": {},
    }
    for name in options.models:
        card, content = repository.read(name, 1)
        device = placed(card, content, options.provider)
        seen = pixels(device, OnnxEngine.open(card, content))
        print(f"{name}: {seen}", flush=True)
        if seen["largest_difference"] > TOLERANCE or not seen["any_batch_same"]:
            print(f"error: the pixels of {name} are wrong on {record['device']}", file=sys.stderr)
            return 1
        del device
        told = loops(name, repository, options.provider, options.seconds)
        with served("ganserve", repository.model_path(name, 1)) as (port, _, _):
            told["served"] = uvloop.run(_requests(port, options.seconds))
        record["models"][name] = told
    print(table(record))
    if options.provider == "cpu":
        print("A rehearsal on the CPU: nothing was written.")
        return 0
    (HERE / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")
    (HERE / "gpu.md").write_text(f"# GPU\n\n{table(record)}\nMade by `python -m benchmarks.gpu`.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
