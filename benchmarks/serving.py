"""Serving speed: ganserve beside the bare limit and its peers, in one run, on one machine, on one ONNX file.

    python -m benchmarks.serving                                  # every side, every case
    python -m benchmarks.serving --sides limit ganserve --cases n16c8 --rounds 3 --seconds 4
    python -m benchmarks.serving --sides ganserve "ganserve, exact"      # what whole numbers gain, over the service
    python -m benchmarks.serving --start                          # start-up time and memory, and nothing else
    python -m benchmarks.serving --cached                         # answers 304 a second, and nothing else
    python -m benchmarks.serving --nginx                          # answers from nginx's cache, and nothing else
    PEERS=/path/to/environments python -m benchmarks.serving      # where peers/<name>.txt is installed in <name>

The client is wrk, every request has a seed of its own, the sides take turns, and the table gives medians over the
rounds; in each round each side is started once, shows that it answers rightly, and takes every case. The bare limit
is what the cores can do without HTTP: one process a core, each turning seeds into latents, images (in batches of 32
at most), a grid and its PNG, or an NPZ. Measurements are added to ``serving.json``, from which ``serving.md`` is
written, so that a table may come from several calls. Cores change their speed from minute to minute, so the limit is
taken again right after each of ganserve's own measurements, and the share of it, and what the median request took
beyond its, are medians of these pairs; the peers' share is that of the table's rows. Each row tells how many cores
other work on the machine took meanwhile: what is well above 0 there spoils the row.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parent
RECORD = HERE / "serving.json"

# name: images a request, connections, format
CASES = {
    f"n{n}c{connections}" + ("" if form == "png" else f"-{form}"): (n, connections, form)
    for form in ("png", "npz")
    for n, connections in ((1, 32), (16, 1), (16, 8), (16, 32), (256, 2))
}
PEERS = {
    "fastapi + onnxruntime, inline": "benchmarks.peers.plain:inline",
    "fastapi + onnxruntime, threaded": "benchmarks.peers.plain:threaded",
    "fastapi + onnxruntime, runs on all cores": "benchmarks.peers.plain:cores",
    "fastapi + torch": "benchmarks.peers.plain:pytorch",
}
# Peers with requirements of their own (benchmarks/peers/*.txt): the environment each is installed in is looked for at
# $PEERS/<name>, and the command is run from its bin folder.
FRAMEWORKS = {
    "litserve": ("litserve", ["python", "-m", "benchmarks.peers.lit"]),
    "bentoml": (
        "bentoml",
        ["bentoml", "serve", "benchmarks.peers.bento:Front", "--host", "127.0.0.1", "--port", "{port}"],
    ),
    "ray serve": ("ray", ["python", "-m", "benchmarks.peers.rayserve"]),
}
# Beside the default, a process a core; and the same network in whole numbers.
ONE, EXACT = "ganserve, one process", "ganserve, exact"
OWN = ("ganserve", ONE, EXACT)
SIDES = ("limit", *OWN, *PEERS, *FRAMEWORKS)
HELLO = "uvicorn alone"

SCRIPT = """
local seed = math.floor(os.time() * 1000) % 100000000
request = function()
  seed = seed + 1000
  local body = string.format('{"label":3,"n":%d,"seed":%d,"format":"%s"}', N, seed, "FORMAT")
  return wrk.format("POST", "/generate", {["Content-Type"]="application/json"}, body)
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"seconds":%.6f,"errors":%d,"p50":%.3f,"p95":%.3f,"p99":%.3f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000))
end
"""

# Statuses are counted in the client's thread; done() runs in another, and reads them there.
COUNT_OTHERS = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
other = 0
function response(status) if status ~= 304 then other = other + 1 end end
function done(summary)
  local sum = 0
  for _, thread in ipairs(threads) do sum = sum + thread:get("other") end
  io.write(string.format('RESULT {"requests":%d,"seconds":%.6f,"others":%d}\\n',
    summary.requests, summary.duration / 1e6, sum))
end
"""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def memory_mb(process: int, field: str) -> float:
    """VmRSS or VmHWM of a process and all below it, in MB."""
    sizes, parents = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        found = re.search(rf"{field}:\s+(\d+) kB", text)
        pid = int(status.parent.name)
        parents[pid] = int(re.search(r"PPid:\s+(\d+)", text)[1])  # type: ignore[index]
        sizes[pid] = int(found[1]) / 1024 if found else 0.0
    total = 0.0
    for pid, size in sizes.items():
        above = pid
        while above in parents and above != process:
            above = parents[above]
        total += size if above == process else 0.0
    return total


def busy_seconds() -> float:
    """CPU seconds that the whole machine has spent so far."""
    user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def group_seconds(process: int) -> float:
    """CPU seconds that a process group has spent so far."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == process:
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def own_seconds() -> float:
    """CPU seconds of this process and of those children of it that have ended, the client among them."""
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system


def on_core(core: int | None) -> list[str]:
    """What a command begins with to stay on one core; nothing where that cannot be had."""
    if core is None or core >= (os.cpu_count() or 1) or shutil.which("taskset") is None:
        return []
    return ["taskset", "-c", str(core)]


def forget_peak(process: int) -> None:
    """Let VmHWM of a process and its children start again from what they hold now."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            if int(status.read_text().rpartition(")")[2].split()[2]) == process:
                status.with_name("clear_refs").write_text("5")


def check(port: int) -> None:
    """Raises RuntimeError for a server whose answers are not what is asked for."""
    for form in ("png", "npz"):
        body = json.dumps({"label": 3, "n": 16, "seed": 5, "format": form}).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/generate", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            content = answer.read()
        if form == "npz":
            with np.load(io.BytesIO(content)) as arrays:
                right = len(arrays["images"]) == 16
        else:
            with Image.open(io.BytesIO(content)) as sheet:
                right = sheet.size[0] == sheet.size[1] > 4 * 28
        if not right:
            raise RuntimeError(f"the {form} that was answered is not of 16 images")


@contextmanager
def served(side: str, model: Path, core: int | None = None) -> Iterator[tuple[int, int, float]]:
    """A server process, on one core if it is named: (port, pid, seconds until it was ready)."""
    port = free_port()
    environment = {**os.environ, "MODEL": str(model), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    if side == HELLO:
        command += ["benchmarks.peers.hello:app", "--loop", "uvloop", "--http", "httptools"]
    else:
        command += [PEERS.get(side, ""), "--factory", "--workers", str(os.cpu_count() or 1)]
    with tempfile.TemporaryDirectory() as data:
        if side in OWN:
            command = [sys.executable, "-m", "service", "--port", str(port), "--models", str(model.parents[2])]
            command += ["--data", data, "--default-model", model.parents[1].name]
            environment["GANSERVE_ADMIN_TOKEN"] = "benchmark"
            environment["GANSERVE_WORKERS"] = "1" if side == ONE else "auto"
        elif side in FRAMEWORKS:
            folder, (program, *arguments) = FRAMEWORKS[side]
            place = Path(os.environ.get("PEERS", "peers")).resolve() / folder / "bin"
            command = [str(place / program), *(part.format(port=port) for part in arguments)]
            environment |= {"PORT": str(port), "PATH": f"{place}:{os.environ['PATH']}", "BENTOML_DO_NOT_TRACK": "1"}
            environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        command = [*on_core(core), *command]
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while True:
                if time.perf_counter() - started > 180:
                    raise RuntimeError(f"{side} was not ready within 180 s")
                if process.poll() is not None:
                    raise RuntimeError(f"{side} ended at once with status {process.returncode}: {' '.join(command)}")
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.005)
            yield port, process.pid, time.perf_counter() - started
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            # What a framework left behind in its own session would disturb the next measurement.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def load(port: int, case: str, seconds: float) -> dict[str, float]:
    """One measurement by wrk: requests, seconds, errors, and percentiles of latency in ms."""
    n, connections, form = CASES[case]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT.replace("N,", f"{n},", 1).replace("FORMAT", form))
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "30s",
            "-s",
            script.name,
        ]
        told = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(re.search(r"RESULT (.*)", told.stdout)[1])  # type: ignore[index]
    return result


def _bare(model: str, n: int, form: str, seconds: float) -> tuple[int, list[float]]:
    """One core's share of the limit: requests, and what each took in ms."""
    import onnxruntime

    from ganserve import encode, png
    from ganserve.latents import consecutive, latents

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    recipe, z = session.get_modelmeta().custom_metadata_map["latent_recipe"], session.get_inputs()[0].shape[1]
    label = np.full((n, 1), 3, np.int64)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        seeds = consecutive(len(took) * 1000, n)
        noise = latents(recipe, seeds, z)
        parts = [
            session.run(None, {"latent": noise[i : i + 32], "label": label[i : i + 32]})[0] for i in range(0, n, 32)
        ]
        images = np.concatenate(parts)
        encode.npz(images, label[:, 0].tolist(), seeds.tolist()) if form == "npz" else png.encode(encode.grid(images))
        took.append((time.perf_counter() - begun) * 1000)
    return len(took), took


def limit(model: Path, case: str, seconds: float) -> dict[str, float]:
    """The cores without HTTP; one core where there is one connection, as one request cannot use more of a batch."""
    n, _, form = CASES[case]
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as pool:
        ends = [pool.submit(_bare, str(model), n, form, seconds) for _ in range(cores)]
        told = [end.result() for end in ends]
    took = np.array([ms for _, times in told for ms in times])
    p50, p95, p99 = np.percentile(took, (50, 95, 99))
    return {
        "requests": sum(count for count, _ in told),
        "seconds": seconds,
        "errors": 0,
        "p50": p50,
        "p95": p95,
        "p99": p99,
    }


def _turn(
    side: str, cases: list[str], model: Path, seconds: float, *, limited: bool
) -> Iterator[tuple[str, dict[str, float]]]:
    """One measurement of a side in every case, the limit after each of ganserve's where that is asked for."""
    if side == "limit":
        for case in cases:
            begun, mine = busy_seconds(), own_seconds()
            result = limit(model, case, seconds)
            result["elsewhere"] = max(0.0, busy_seconds() - begun - (own_seconds() - mine)) / seconds
            yield case, result
        return
    with served(side, model) as (port, pid, _):
        check(port)
        for case in cases:
            load(port, case, 1)
            forget_peak(pid)
            begun, mine = busy_seconds(), own_seconds() + group_seconds(pid)
            result = load(port, case, seconds) | {"memory_mb": memory_mb(pid, "VmHWM")}
            mine -= own_seconds() + group_seconds(pid)
            result["elsewhere"] = max(0.0, busy_seconds() - begun + mine) / seconds
            if side in OWN and limited:
                beside = limit(model, case, seconds)
                result["of_limit"] = result["requests"] / result["seconds"] / beside["requests"] * beside["seconds"]
                result["p50_over"] = result["p50"] - beside["p50"]
            yield case, result


@contextmanager
def alone(*models: Path) -> Iterator[list[Path]]:
    """Copies of versions, each the live one of a repository of its own: what is served is what was named."""
    with tempfile.TemporaryDirectory() as place:
        found = []
        for model in models:
            version = model.parent.name
            copied = Path(place) / version / model.parents[1].name
            shutil.copytree(model.parent, copied / version)
            pointer = {"version": int(version), "previous": None, "promoted_at": "2026-01-01T00:00:00Z"}
            (copied / "live.json").write_text(json.dumps(pointer))
            found.append(copied / version / model.name)
        yield found


def measure(
    sides: dict[str, Path], cases: list[str], rounds: int, seconds: float
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Medians of every side with its model in every case, and why sides were left out; sides take turns within each
    round."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    broken: dict[str, str] = {}
    for turn in range(rounds):
        for side in [side for side in sides if side not in broken]:
            try:
                for case, result in _turn(side, cases, sides[side], seconds, limited="limit" in sides):
                    found.setdefault((side, case), []).append(result)
                    rate = result["requests"] / result["seconds"] * CASES[case][0]
                    told = f"{rate:.0f} images/s, p50 {result['p50']:.2f} ms"
                    print(f"round {turn + 1}: {side}, {case}: {told}", flush=True)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                # A peer that fails shall not cost the measurements of the others.
                broken[side] = f"{type(error).__name__}: {error}"
                print(f"round {turn + 1}: {side} is left out from here on: {broken[side]}", flush=True)
    rows = []
    for (side, case), results in found.items():
        middle = {key: statistics.median(r[key] for r in results) for key in results[0]}
        per_second = statistics.median(r["requests"] / r["seconds"] for r in results)
        errors = sum(r["errors"] for r in results)
        figures = {"requests_per_second": per_second, **middle, "errors": errors}
        how = f"{rounds} rounds of {seconds:g} s"
        served = f"{sides[side].parents[1].name} version {sides[side].parent.name}"
        each = [r["requests"] / r["seconds"] for r in results]
        rows.append({"side": side, "case": case, **figures, "how": how, "model": served, "rounds": each})
    return rows, broken


def cached(model: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Repeated seeded requests with ``If-None-Match`` on one process and one core, the client on another: answers 304
    a second, beside what uvicorn does when it is asked for nothing else."""
    rates: dict[str, list[float]] = {ONE: [], HELLO: []}
    others = 0
    with served(ONE, model, 0) as (port, _, _), served(HELLO, model, 0) as (bare, _, _):
        path = "/generate?label=3&n=16&seed=42"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            tag = answer.headers["ETag"]
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(COUNT_OTHERS)
            script.flush()
            wrk = [*on_core(1), "wrk", "-t1", "-c16", "-s", script.name, "-H", f"If-None-Match: {tag}"]
            for _ in range(rounds):
                for side, at in ((ONE, port), (HELLO, bare)):
                    command = [*wrk, f"-d{max(1, round(seconds))}s", f"http://127.0.0.1:{at}{path}"]
                    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    result = json.loads(re.search(r"RESULT (.*)", told)[1])  # type: ignore[index]
                    rates[side].append(result["requests"] / result["seconds"])
                    others += result["others"]
    ours, bare_rate = (statistics.median(rates[side]) for side in (ONE, HELLO))
    return {
        "requests_per_second": ours,
        "uvicorn_alone": bare_rate,
        "share": ours / bare_rate,
        "others": others,
        "cores_apart": bool(on_core(1)),
    }


def behind_nginx(model: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Answers a second of a seeded image from nginx's cache, and of the same bytes as a file that nginx serves itself,
    in turns, with the configuration of the containers."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise RuntimeError("nginx is not installed: apt-get install nginx")
    path = f"/images/{model.parents[1].name}/{model.parent.name}/3/42.png"
    rates: dict[str, list[float]] = {"cache": [], "file": []}
    others, front = 0, free_port()
    with tempfile.TemporaryDirectory() as place, served(ONE, model) as (port, _, _):
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        text = re.sub(r"server replica:8000 .*;", f"server 127.0.0.1:{port};", text).replace("/tmp/nginx", f"{place}/n")
        text = text.replace("listen 8080;", f"listen 127.0.0.1:{front}; location /file/ {{ root {place}; }}")
        text = text.replace("/dev/stdout", f"{place}/access.log").replace("/dev/stderr", f"{place}/error.log")
        configuration = Path(place) / "nginx.conf"
        configuration.write_text(("user root;\n" if os.geteuid() == 0 else "") + text)
        process = subprocess.Popen([nginx, "-c", str(configuration), "-g", "daemon off;"])
        try:
            for _ in range(200):
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{front}{path}") as answer:
                    content = answer.read()
                    if answer.headers["X-Cache"] == "HIT":
                        break
                time.sleep(0.05)
            else:
                raise RuntimeError("nginx keeps no image")
            (Path(place) / "file").mkdir()
            (Path(place) / "file" / "42.png").write_bytes(content)
            with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
                script.write(COUNT_OTHERS.replace("304", "200"))
                script.flush()
                for _ in range(rounds):
                    for kind, address in (("cache", path), ("file", "/file/42.png")):
                        command = ["wrk", "-t1", "-c16", f"-d{max(1, round(seconds))}s", "-s", script.name]
                        command.append(f"http://127.0.0.1:{front}{address}")
                        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                        result = json.loads(re.search(r"RESULT (.*)", told)[1])  # type: ignore[index]
                        rates[kind].append(result["requests"] / result["seconds"])
                        others += result["others"]
        finally:
            process.terminate()
            process.wait(20)
    share = statistics.median(a / b for a, b in zip(rates["cache"], rates["file"], strict=True))
    return {**{kind: statistics.median(found) for kind, found in rates.items()}, "share": share, "others": others}


def starts(model: Path, times: int) -> dict[str, Any]:
    """From the process's start to the first 200 of ``/health/ready``, and its resident memory then."""
    seconds, resident = [], []
    for _ in range(times):
        with served("ganserve", model) as (_, pid, took):
            seconds.append(took)
            resident.append(memory_mb(pid, "VmRSS"))
    names = sorted(path.parent.name for path in model.parents[2].glob("*/live.json"))
    return {
        "seconds": statistics.median(seconds),
        "slowest": max(seconds),
        "resident_mb": statistics.median(resident),
        "times": times,
        "models": len(names),
    }


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    rows = record.get("rows", [])
    best = {row["case"]: row["requests_per_second"] for row in rows if row["side"] == "limit"}
    lines = []
    if rows:
        lines += [
            "| case | side | requests/s | images/s | of limit | p50 ms | over limit's | p95 ms | p99 ms | errors "
            "| peak MB | lost |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
        ]
    for case, (n, connections, form) in CASES.items():
        for row in (row for row in rows if row["case"] == case):
            rate = row["requests_per_second"]
            share = row.get("of_limit", rate / best[case] if case in best else None)
            share = "-" if share is None else f"{share:.2f}"
            # With more connections than cores requests wait for each other.
            over = f"{row['p50_over']:.2f}" if connections == 1 and "p50_over" in row else "-"
            memory = f"{row['memory_mb']:.0f}" if "memory_mb" in row else "-"
            lines.append(
                f"| n = {n}, {connections} connections, {form} | {row['side']} | {rate:.0f} | {rate * n:.0f} | "
                f"{share} | {row['p50']:.2f} | {over} | {row['p95']:.2f} | {row['p99']:.2f} | "
                f"{row['errors']:.0f} | {memory} | {row.get('elsewhere', 0):.2f} |"
            )
    lines += ratios(rows)
    lines += [f"\nLeft out: {side} ({why})." for side, why in record.get("left_out", {}).items()]
    if "cached" in record:
        told = record["cached"]
        where = "server and client on a core each" if told["cores_apart"] else "server and client share the cores"
        lines.append(
            f"\nRepeated seeded requests with If-None-Match, one process, 16 connections, {where}: "
            f"{told['requests_per_second']:.0f} answers 304 a second ({told['others']} other answers); uvicorn alone, "
            f"answering the same to everything: {told['uvicorn_alone']:.0f}, of which that is {told['share']:.2f}."
        )
    if "nginx" in record:
        told = record["nginx"]
        lines.append(
            f"\nThe same address from the cache of `deploy/nginx.conf`, 16 connections, nginx and client on all cores: "
            f"{told['cache']:.0f} answers 200 a second ({told['others']} other answers); the same bytes as a file of "
            f"nginx's own: {told['file']:.0f}, of which that is {told['share']:.2f}."
        )
    if "start" in record:
        told = record["start"]
        lines.append(
            f"\nStart to ready with {told['models']} models in the repository, median of {told['times']}: "
            f"{told['seconds']:.2f} s (slowest {told['slowest']:.2f} s), {told['resident_mb']:.0f} MB resident."
        )
    return "\n".join(lines)


def ratios(rows: list[dict[str, Any]]) -> list[str]:
    """How many times as many requests ganserve answers as each of the others, and exact as float: medians over the
    rounds."""
    rates = {(row["case"], row["side"]): row["rounds"] for row in rows}
    others = [side for side in (*PEERS, *FRAMEWORKS) if any(side == found for _, found in rates)]
    heads = ["ganserve to the best of them", *others, "exact to float"]
    lines = ["", f"| case | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for case, (n, connections, form) in CASES.items():
        against = {side: _ratio(rates, case, "ganserve", side) for side in others}
        known = [ratio for ratio in against.values() if ratio is not None]
        cells = [min(known, default=None), *against.values(), _ratio(rates, case, EXACT, "ganserve")]
        if any(cell is not None for cell in cells):
            told = " | ".join("-" if cell is None else f"{cell:.2f}" for cell in cells)
            lines.append(f"| n = {n}, {connections} connections, {form} | {told} |")
    return lines if len(lines) > 3 else []


def _ratio(rates: dict[tuple[str, str], list[float]], case: str, side: str, other: str) -> float | None:
    ours, theirs = rates.get((case, side), []), rates.get((case, other), [])
    # Those of one round stand beside each other; of different calls there are none.
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if b]
    return statistics.median(a / b for a, b in pairs) if pairs else None


def how_often(record: dict[str, Any]) -> str:
    """Rounds and seconds, with the sides that had others than most."""
    sides: dict[str, list[str]] = {}
    for row in record.get("rows", []):
        told = sides.setdefault(row["how"], [])
        if row["side"] not in told:
            told.append(row["side"])
    usual, *others = sorted(sides, key=lambda how: -len(sides[how])) or [""]
    return usual + "".join(f" ({'; '.join(sides[how])}: {how})" for how in others)


def main() -> int:
    """Measure, merge into the record, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "mnist-projgan" / "4" / "model.onnx")
    parser.add_argument("--exact", type=Path, help="the same in whole numbers; by default the version after it")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--start", action="store_true", help="start-up time and memory, and nothing else")
    parser.add_argument("--cached", action="store_true", help="answers 304 a second, and nothing else")
    parser.add_argument("--nginx", action="store_true", help="answers from nginx's cache a second, and nothing else")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("error: wrk is not installed (apt-get install wrk, or brew install wrk)", file=sys.stderr)
        return 2
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    model = options.model.resolve()
    if not options.start and not options.cached and not options.nginx:
        after = model.parents[1] / str(int(model.parent.name) + 1) / model.name
        with alone(model, (options.exact or after).resolve()) as (given, exact):
            sides = {side: exact if side == EXACT else given for side in options.sides}
            new, broken = measure(sides, options.cases, options.rounds, options.seconds)
        named = {(row["side"], row["case"]) for row in new}
        kept = [row for row in record.get("rows", []) if row["side"] in SIDES and "rounds" in row]
        old = [row for row in kept if (row["side"], row["case"]) not in named]
        record["rows"] = sorted(old + new, key=lambda row: (list(CASES).index(row["case"]), SIDES.index(row["side"])))
        still = {side: why for side, why in record.get("left_out", {}).items() if side not in options.sides}
        record["left_out"] = still | broken
    if options.cached:
        record["cached"] = cached(model, options.rounds, options.seconds)
    if options.nginx:
        record["nginx"] = behind_nginx(model, options.rounds, options.seconds)
    if options.start:
        record["start"] = starts(model, 5)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    told = table(record)
    print(told)
    # What the rows were measured on, which need not be what this call was given.
    models = ", ".join(sorted({row["model"] for row in record.get("rows", [])}))
    head = (
        f"# Serving speed\n\n{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; "
        f"{how_often(record)}; {models}. ganserve and its peers run "
        "one process a core, which is its default; `ganserve, one process` is `GANSERVE_WORKERS=1`, `ganserve, exact` "
        "the default with the version in whole numbers, all others the float one. Made by `python -m "
        "benchmarks.serving`. Of limit: for ganserve the median of pairs measured one right after the other, for the "
        "others the rows' ratio. Lost: cores that other work took meanwhile.\n\n"
    )
    (HERE / "serving.md").write_text(head + told + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
