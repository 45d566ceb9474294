"""Whether every engine gives the bytes that the card of an exact version promises: the digest of 256 addresses.

    python -m benchmarks.engines                                # onnxruntime, numpy, PyTorch; onnxruntime-web in Node
    python -m benchmarks.engines --node                         # onnxruntime-web in Node alone
    python -m benchmarks.engines --openvino PYTHON              # an interpreter that has openvino
    python -m benchmarks.engines --arm64 ROOT PACKAGES          # qemu-aarch64, an arm64 Python's root, its onnxruntime
    python -m benchmarks.engines --processors Nehalem SandyBridge Haswell-noTSX     # qemu-x86_64
    python -m benchmarks.engines --cuda                         # PyTorch and CuPy on a GPU, TF32 on and off
    python -m benchmarks.engines --cuda cpu                     # a rehearsal of that without one

Nothing is timed. Rows are merged into ``engines.json``, from which ``engines.md`` is written. With ``--cuda`` it needs
no more than numpy, onnx, PyTorch and (where it is there) CuPy and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import arrays
from ganserve.proof import exact_digest
from ganserve.twin import float32_twin

HERE = Path(__file__).parent
ROOT = HERE.parent
RECORD = HERE / "engines.json"
WHOLE, TWIN = "whole numbers", "float32 twin"
BATCHES = (1, 2, 7, 32, 256)
THREADS = (1, 2, 4)
SECONDS = 1800
HEAD = (
    "# Exact versions on every engine that was tried\n\nWhether the 256 addresses that a card promises are the "
    "same bytes. Made by `python -m benchmarks.engines`; a twin is made of the same file. onnxruntime 1.31 for arm64 "
    "does not start under qemu 7.2, 1.24 does. CUDA, Triton and a processor of ARM's own were not at hand.\n\n"
)

# Prints the digest of a graph, by whichever Python runs it.
ONNXRUNTIME = """
import json, sys, onnxruntime
from ganserve.proof import exact_digest
print("version", onnxruntime.__version__)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 4
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
def run(latent, label):
    return session.run(None, {"latent": latent} | ({} if label is None else {"label": label}))[0]
print("digest", exact_digest(run, *json.loads(sys.argv[2])))
"""
OPENVINO = """
import json, sys, openvino
from ganserve.proof import exact_digest
print("version", openvino.__version__)
core = openvino.Core()
compiled = core.compile_model(core.read_model(sys.argv[1]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
def run(latent, label):
    return compiled({"latent": latent} | ({} if label is None else {"label": label}))["image"]
print("digest", exact_digest(run, *json.loads(sys.argv[2])))
"""
NODE = """
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const [page, folder, file, told] = process.argv.slice(1);
const ort = await import(pathToFileURL(`${folder}/ort.wasm.min.mjs`));
const { latents } = await import(pathToFileURL(`${page}/latents.js`));
const { grid, z, classes } = JSON.parse(told);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = pathToFileURL(`${folder}/`).href;
const session = await ort.InferenceSession.create(readFileSync(file), { executionProviders: ["wasm"] });
const digest = createHash("sha256");
for (let first = 0; first < 256; first += 32) {
  const seeds = [...Array(32).keys()].map((i) => first + i);
  const feeds = { latent: new ort.Tensor("float32", latents(grid, seeds, z), [32, z]) };
  if (classes) feeds.label = new ort.Tensor("int64", BigInt64Array.from(seeds, (s) => BigInt(s % classes)), [32, 1]);
  digest.update((await session.run(feeds)).image.data);
}
console.log("version", ort.env.versions.web ?? ort.env.versions.common);
console.log("digest", digest.digest("hex"));
"""


@dataclass(frozen=True)
class Version:
    """An exact version as its files tell it: no more packages are needed to read it."""

    name: str
    content: bytes
    digest: str
    recipe: str
    z: int
    classes: int

    @property
    def asked(self) -> tuple[str, int, int]:
        """What a digest is of."""
        return self.recipe, self.z, self.classes

    def forms(self) -> dict[str, bytes]:
        """The graph and its twin."""
        return {WHOLE: self.content, TWIN: float32_twin(self.content)}


def shipped(only: list[str]) -> Iterator[Version]:
    """The exact versions of the repository, or those named."""
    for path in sorted((ROOT / "models").glob("*/*/card.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        name = f"{card['name']}:{card['version']}"
        if card.get("exact") and (not only or name in only):
            content = path.with_name("model.onnx").read_bytes()
            classes = len(card["classes"])
            yield Version(name, content, card["exact_digest"], card["latent_recipe"], card["z"], classes)


Row = tuple[str, str, str]  # an engine, a form, what it gave


def here(version: Version) -> Iterator[Row]:
    """onnxruntime in this process at every level of optimisation, batch and number of threads; numpy; PyTorch."""
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    engine = f"onnxruntime {onnxruntime.__version__}, {platform.machine()}"
    for form, content in version.forms().items():
        found = []
        for name in ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level, options.intra_op_num_threads = getattr(levels, name), 1
            found.append(_of_session(version, content, options))
        yield f"{engine}, all {len(found)} levels of optimisation", form, _worst(found)
        found = []
        for threads in THREADS:
            for batch in BATCHES:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = threads
                found.append(_of_session(version, content, options, batch))
        yield f"{engine}, threads {THREADS} by batches {BATCHES}", form, _worst(found)
    yield "numpy", TWIN, _compared(version, lambda: _of(version, arrays.by_numpy))
    yield "PyTorch, CPU", TWIN, _compared(version, lambda: _of(version, lambda twin: arrays.by_torch(twin, "cpu")))


def _worst(verdicts: list[str]) -> str:
    return next((verdict for verdict in verdicts if verdict != "the same"), "the same")


def _of_session(version: Version, content: bytes, options: Any, batch: int = 32) -> str:
    import onnxruntime

    options.log_severity_level = 4

    def found() -> str:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

        def run(latent: Any, label: Any) -> Any:
            return session.run(None, {"latent": latent} | ({} if label is None else {"label": label}))[0]

        return exact_digest(run, *version.asked, batch=batch)

    return _compared(version, found)


def _of(version: Version, interpreter: Any) -> str:
    return exact_digest(interpreter(float32_twin(version.content)), *version.asked)


def _compared(version: Version, found: Any) -> str:
    try:
        return "the same" if found() == version.digest else "other bytes"
    except Exception as error:  # each engine has its own kinds
        lines = str(error).strip().splitlines()
        return f"does not run: {lines[-1][:160] if lines else type(error).__name__}"


def elsewhere(version: Version, engine: str, command: list[str], environment: dict[str, str]) -> Iterator[Row]:
    """A command that prints the digest of the graph, and of its twin."""
    for form, content in version.forms().items():
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(content)
            file.flush()
            asked = [*command, file.name, json.dumps(version.asked)]
            if command[0] == "node":
                asked[-1] = json.dumps(_for_node(version))
            told: dict[str, str] = {}

            def found(asked: list[str] = asked, told: dict[str, str] = told) -> str:
                done = subprocess.run(
                    asked, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, **environment}
                )
                for line in done.stdout.splitlines():
                    word, _, rest = line.partition(" ")
                    told[word] = rest
                if "digest" not in told:
                    raise RuntimeError(done.stderr)
                return told["digest"]

            verdict = _compared(version, found)
            yield f"{engine} {told.get('version', '')}".strip(), form, verdict


def _for_node(version: Version) -> dict[str, Any]:
    from ganserve.grid import STEPS, THRESHOLDS

    normal = version.recipe == "philox-grid/v1"
    grid = {"steps": STEPS[version.recipe], "thresholds": THRESHOLDS.tolist() if normal else None}
    return {"grid": grid, "z": version.z, "classes": version.classes}


def node(version: Version) -> Iterator[Row]:
    """onnxruntime-web in Node, where both are here."""
    from ganserve.web import runtime

    if shutil.which("node") is None or not runtime.kept().is_dir():
        print("left out: node, or onnxruntime-web (make web-runtime)", file=sys.stderr)
        return
    script = ["node", "--input-type=module", "-e", NODE, str(ROOT / "ganserve/web/page"), str(runtime.kept().resolve())]
    yield from elsewhere(version, "onnxruntime-web in Node", script, {})


def cuda(version: Version, device: str) -> Iterator[Row]:
    """PyTorch with TF32 off and on, CuPy, and onnxruntime where it has CUDA."""
    import torch

    card = torch.cuda.get_device_name() if device == "cuda" else "rehearsed on the CPU"
    for tf32 in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        told = f"PyTorch {torch.__version__}, {card}, TF32 {'on' if tf32 else 'off'}"
        yield told, TWIN, _compared(version, lambda: _of(version, lambda twin: arrays.by_torch(twin, device)))
    if device != "cuda":
        return
    try:
        import cupy  # type: ignore[import-not-found]
    except ImportError:
        print("left out: CuPy is not installed", file=sys.stderr)
    else:
        yield f"CuPy {cupy.__version__}, {card}", TWIN, _compared(version, lambda: _of(version, arrays.by_cupy))
    yield from _onnxruntime_cuda(version, card)


def _onnxruntime_cuda(version: Version, card: str) -> Iterator[Row]:
    try:
        import onnxruntime
    except ImportError:
        return
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        print("left out: this onnxruntime has no CUDA", file=sys.stderr)
        return
    for form, content in version.forms().items():
        for tf32 in "01":

            def found(content: bytes = content, tf32: str = tf32) -> str:
                providers = [("CUDAExecutionProvider", {"use_tf32": tf32}), "CPUExecutionProvider"]
                session = onnxruntime.InferenceSession(content, providers=providers)

                def run(latent: Any, label: Any) -> Any:
                    return session.run(None, {"latent": latent} | ({} if label is None else {"label": label}))[0]

                return exact_digest(run, *version.asked)

            told = f"onnxruntime {onnxruntime.__version__}, {card}, TF32 {'on' if tf32 == '1' else 'off'}"
            yield told, form, _compared(version, found)


def rows(version: Version, options: argparse.Namespace) -> Iterator[Row]:
    """What was asked for."""
    path = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Nehalem"}
    if options.cuda:
        yield from cuda(version, options.cuda)
    if options.openvino:
        yield from elsewhere(version, "OpenVINO", [options.openvino, "-c", OPENVINO], path)
    if options.arm64:
        root, packages = options.arm64
        command = ["qemu-aarch64", "-L", root, f"{root}/usr/bin/python3", "-c", ONNXRUNTIME]
        both = {**path, "PYTHONPATH": f"{packages}:{ROOT}"}
        both.pop("OPENBLAS_CORETYPE")
        yield from elsewhere(version, "emulated arm64, onnxruntime", command, both)
    for processor in options.processors:
        command = ["qemu-x86_64", "-cpu", processor, sys.executable, "-c", ONNXRUNTIME]
        yield from elsewhere(version, f"emulated {processor}, onnxruntime", command, path)
    alone = not (options.cuda or options.openvino or options.arm64 or options.processors)
    if alone and not options.node:
        yield from here(version)
    if alone or options.node:
        yield from node(version)


def table(record: dict[str, Any]) -> str:
    """The record as Markdown: a row an engine and form, with the versions that gave each answer."""
    lines = ["| engine | form | the same bytes | not |", "|---|---|---|---|"]
    for engine, forms in record.items():
        for form, told in forms.items():
            same = [name for name, verdict in told.items() if verdict == "the same"]
            other = [f"{name}: {verdict}" for name, verdict in told.items() if verdict != "the same"]
            lines.append(f"| {engine} | {form} | {', '.join(same) or '-'} | {'; '.join(other) or '-'} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what is asked for, merge, write; exit status 1 if an engine gave other bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME:VERSION", help="all exact ones by default")
    parser.add_argument("--node", action="store_true", help="onnxruntime-web in Node alone")
    parser.add_argument("--openvino", metavar="PYTHON")
    parser.add_argument("--arm64", nargs=2, metavar=("ROOT", "PACKAGES"))
    parser.add_argument("--processors", nargs="*", default=[])
    parser.add_argument("--cuda", nargs="?", const="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--out", type=Path, default=RECORD, help="the record that rows are merged into")
    options = parser.parse_args()
    record: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    failed = False
    for version in shipped(options.models):
        for engine, form, verdict in rows(version, options):
            print(f"{version.name:20} {engine}, {form}: {verdict}", flush=True)
            record.setdefault(engine, {}).setdefault(form, {})[version.name] = verdict
            failed |= verdict == "other bytes"
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    options.out.with_suffix(".md").write_text(HEAD + table(record), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
