"""What makes an exported generator faster at the same pixels: microseconds an image of each attempt.

    python -m benchmarks.generators                                  # every attempt that this interpreter can run
    python -m benchmarks.generators --attempts plain no-optimisation torch
    path/to/venv/bin/python -m benchmarks.generators --attempts openvino   # where onnxruntime-openvino is installed

Single-threaded attempts are timed by the thread's own CPU clock, so other work on the machine disturbs them little; the
attempts with two threads or two sessions by the clock on the wall, which others do disturb. Each figure is the median
over rounds in which the attempts take turns. Pixels are compared with the plain graph's. Measurements are merged into
``generators.json``, from which ``generators.md`` is written.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

HERE = Path(__file__).parent
RECORD = HERE / "generators.json"
BATCHES = (1, 2, 4, 8, 16, 32, 64)

Pixels = NDArray[np.uint8]
Run = Callable[[NDArray[np.float32], NDArray[np.int64] | None], Pixels]


def session(content: bytes, threads: int = 1, level: str = "ENABLE_ALL", provider: Any = "CPUExecutionProvider") -> Any:
    """A session of onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    return onnxruntime.InferenceSession(content, options, providers=[provider])


def runner(made: Any) -> Run:
    """A session as a function."""
    names = [value.name for value in made.get_inputs()]

    def run(latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> Pixels:
        feed: dict[str, Any] = {"latent": latent} | ({"label": label} if "label" in names else {})
        images: Pixels = made.run(None, feed)[0]
        return images

    return run


def unfolded(content: bytes) -> bytes:
    """As an exporter leaves it that does not fold batch norms: a hidden convolution has its norm as a node.

    The weights are the shipped ones, so the norms' own are those that change nothing; they cost the same.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(content)
    # A conditional norm's scale and shift by class follow as operators of their own.
    activated = {node.input[0] for node in model.graph.node if node.op_type in ("Relu", "Mul")}
    values = {i.name: i for i in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose") and n.output[0] in activated]:
        weight = numpy_helper.to_array(values[node.input[1]])
        width = weight.shape[1 if node.op_type == "ConvTranspose" else 0]
        bias = numpy_helper.to_array(values[node.input[2]]) if len(node.input) > 2 else np.zeros(width, np.float32)
        del node.input[2:]
        name, source = node.output[0], f"{node.output[0]}_normed"
        node.output[0] = source
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        parts = {"scale": ones, "shift": bias, "mean": zeros, "variance": ones}
        for part, value in parts.items():
            model.graph.initializer.append(numpy_helper.from_array(value, f"{name}_{part}"))
        inputs = [source, *(f"{name}_{part}" for part in parts)]
        norm = onnx.helper.make_node("BatchNormalization", inputs, [name], epsilon=0.0)
        model.graph.node.insert(list(model.graph.node).index(node) + 1, norm)
    return bytes(model.SerializeToString())


def fewer_tail_operators(content: bytes) -> bytes:
    """Tanh to uint8 with the scale folded: one operator less over every pixel, and no Clip, which tanh cannot need."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(content)
    nodes = {node.op_type: node for node in model.graph.node}
    shift, scale, clip = nodes["Sub"], nodes["Mul"], nodes["Clip"]
    scale = next(node for node in model.graph.node if node.op_type == "Mul" and node.input[0] == shift.output[0])
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    low, factor = float(values[shift.input[1]]), float(values[scale.input[1]])
    for name, value in (("factor", factor), ("offset", -low * factor)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    source, target = shift.input[0], scale.output[0]
    made = [
        onnx.helper.make_node("Mul", [source, "factor"], ["scaled"]),
        onnx.helper.make_node("Add", ["scaled", "offset"], [target]),
    ]
    place = list(model.graph.node).index(shift)
    for node in (shift, scale):
        model.graph.node.remove(node)
    for node in reversed(made):
        model.graph.node.insert(place, node)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == clip.output[0]:
                node.input[index] = clip.input[0]
    model.graph.node.remove(clip)
    return bytes(model.SerializeToString())


def convolutions(content: bytes) -> bytes:
    """Each 4x4 stride-2 ConvTranspose as one 3x3 Conv of four phases (with zero taps) and a DepthToSpace."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(content)
    values = {i.name: i for i in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type == "ConvTranspose"]:
        weight = numpy_helper.to_array(values[node.input[1]])  # [in, out, 4, 4]
        inner, outer = weight.shape[:2]
        made = np.zeros((outer, 4, inner, 3, 3), np.float32)
        # y[2i + p] sums x[i + d] w[k] over 2 (i + d) + k - 1 = 2i + p, so k = p + 1 - 2d, for taps d in -1, 0, 1.
        for p in (0, 1):
            for q in (0, 1):
                for d in (-1, 0, 1):
                    for e in (-1, 0, 1):
                        k, m = p + 1 - 2 * d, q + 1 - 2 * e
                        if 0 <= k < 4 and 0 <= m < 4:
                            made[:, 2 * p + q, :, d + 1, e + 1] = weight[:, :, k, m].T
        name = node.output[0]
        model.graph.initializer.append(numpy_helper.from_array(made.reshape(outer * 4, inner, 3, 3), f"{name}_phases"))
        inputs = [node.input[0], f"{name}_phases"]
        if len(node.input) > 2:
            bias = numpy_helper.to_array(values[node.input[2]]).repeat(4)
            model.graph.initializer.append(numpy_helper.from_array(bias, f"{name}_phase_bias"))
            inputs.append(f"{name}_phase_bias")
        conv = onnx.helper.make_node("Conv", inputs, [f"{name}_four"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        shuffle = onnx.helper.make_node("DepthToSpace", [f"{name}_four"], [name], blocksize=2, mode="CRD")
        place = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        model.graph.node.insert(place, shuffle)
        model.graph.node.insert(place, conv)
    return bytes(model.SerializeToString())


def torch_runner(content: bytes, channels_last: bool) -> Run:
    """The graph itself, operator by operator, in torch."""
    import onnx
    import torch
    import torch.nn.functional as F
    from onnx import numpy_helper

    torch.set_num_threads(1)
    model = onnx.load_from_string(content)
    constants = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in model.graph.initializer}

    def shaped(tensor: Any) -> Any:
        return tensor.contiguous(memory_format=torch.channels_last) if channels_last and tensor.ndim == 4 else tensor

    constants = {name: shaped(value) for name, value in constants.items()}
    unsqueeze = {n.output[0]: constants[n.input[1]].tolist() for n in model.graph.node if n.op_type == "Unsqueeze"}

    def several(value: Any, axes: list[int]) -> Any:
        for axis in axes:
            value = value.unsqueeze(axis)
        return value

    @torch.inference_mode()
    def run(latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> Pixels:
        known: dict[str, Any] = {**constants, "latent": torch.from_numpy(latent)}
        if label is not None:
            known["label"] = torch.from_numpy(label)
        for node in model.graph.node:
            kind = node.op_type
            given: list[Any] = [known.get(name) for name in node.input]
            settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if kind == "Gemm":
                known[node.output[0]] = F.linear(given[0], given[1], given[2])
            elif kind == "Reshape":
                known[node.output[0]] = shaped(given[0].reshape([len(latent), *given[1].tolist()[1:]]))
            elif kind == "Squeeze":
                known[node.output[0]] = given[0].squeeze(1)
            elif kind == "Unsqueeze":
                known[node.output[0]] = several(given[0], unsqueeze[node.output[0]])
            elif kind == "Gather":
                known[node.output[0]] = given[0][given[1]]
            elif kind in ("ConvTranspose", "Conv"):
                call = F.conv_transpose2d if kind == "ConvTranspose" else F.conv2d
                bias = given[2] if len(given) > 2 else None
                known[node.output[0]] = call(
                    given[0], given[1], bias, stride=settings["strides"], padding=settings["pads"][:2]
                )
            elif kind == "Cast":
                known[node.output[0]] = given[0].to(torch.uint8)
            elif kind == "Transpose":
                known[node.output[0]] = given[0].permute(*settings["perm"])
            elif kind == "Clip":
                known[node.output[0]] = given[0].clamp(float(given[1]), float(given[2]))
            else:
                calls: dict[str, Callable[..., Any]] = {"Mul": torch.mul, "Add": torch.add, "Sub": torch.sub}
                calls |= {"Relu": torch.relu, "Tanh": torch.tanh, "Round": torch.round}
                known[node.output[0]] = calls[kind](*given)
        pixels: Pixels = known["image"].contiguous().numpy()
        return pixels

    return run


def _openvino(content: bytes, threads: int) -> Run:
    options = {"device_type": "CPU", "num_of_threads": str(threads), "precision": "FP32"}
    made = session(content, threads, provider=("OpenVINOExecutionProvider", options))
    if made.get_providers()[0] != "OpenVINOExecutionProvider":
        raise RuntimeError("this onnxruntime is not onnxruntime-openvino")
    return runner(made)


def _saved(content: bytes, level: str) -> bytes:
    """The graph as onnxruntime itself rewrites it, saved and read back."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return (Path(folder) / "model.onnx").read_bytes()


ATTEMPTS: dict[str, tuple[str, Callable[[bytes], Run]]] = {
    "plain": ("what is shipped, all of onnxruntime's optimisations", lambda c: runner(session(c))),
    "unfolded": (
        "batch norms not folded, as other exporters leave it",
        lambda c: runner(session(unfolded(c))),
    ),
    "no-optimisation": ("onnxruntime's optimisations off", lambda c: runner(session(c, level="DISABLE_ALL"))),
    "basic": ("basic optimisations only", lambda c: runner(session(c, level="ENABLE_BASIC"))),
    "extended": ("extended ones, no layout changes", lambda c: runner(session(c, level="ENABLE_EXTENDED"))),
    "saved": ("optimised at export (extended), then loaded", lambda c: runner(session(_saved(c, "EXTENDED")))),
    "tail": ("scale folded, no Clip, in the tail", lambda c: runner(session(fewer_tail_operators(c)))),
    "phases": ("ConvTranspose as 3x3 Conv and DepthToSpace", lambda c: runner(session(convolutions(c)))),
    "phases-plain": (
        "the same without the NCHWc layout",
        lambda c: runner(session(convolutions(c), level="ENABLE_EXTENDED")),
    ),
    "torch": ("torch, contiguous", lambda c: torch_runner(c, False)),
    "torch-nhwc": ("torch, channels last", lambda c: torch_runner(c, True)),
    "openvino": ("onnxruntime-openvino", lambda c: _openvino(c, 1)),
}


def inputs(card: dict[str, Any], n: int) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Latents of seeds from 0 on, and the classes in turn."""
    noise = np.random.default_rng(0).standard_normal((n, card["z"]), dtype=np.float32)
    label = (np.arange(n, dtype=np.int64) % len(card["classes"]))[:, None] if card["conditional"] else None
    return noise, label


def once(run: Run, latent: Any, label: Any, seconds: float, clock: Callable[[], float]) -> float:
    """Microseconds an image, over at least ``seconds``."""
    run(latent, label)
    begun, count = clock(), 0
    while (spent := clock() - begun) < seconds or count < 2:
        run(latent, label)
        count += 1
    return spent / count / len(latent) * 1e6


def together(runs: list[Run], latent: Any, label: Any, seconds: float) -> float:
    """Microseconds of the wall's clock an image, with each run in a thread of its own."""
    counts = [0] * len(runs)
    end = time.perf_counter() + seconds

    def loop(index: int) -> None:
        while time.perf_counter() < end:
            runs[index](latent, label)
            counts[index] += 1

    begun = time.perf_counter()
    threads = [threading.Thread(target=loop, args=(index,)) for index in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - begun) / (sum(counts) * len(latent)) * 1e6


def measure(path: Path, names: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Every attempt on one model."""
    content, card = path.read_bytes(), json.loads(path.with_name("card.json").read_text(encoding="utf-8"))
    reference = runner(session(content))
    latent, label = inputs(card, 64)
    expected = reference(latent, label).astype(int)
    runs: dict[str, Run] = {}
    record: dict[str, Any] = {}
    for name in names:
        try:
            runs[name] = ATTEMPTS[name][1](content)
            apart = np.abs(runs[name](latent, label).astype(int) - expected)
        except Exception as error:  # an attempt that this machine cannot make is a result too
            record[name] = {"cannot": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
            continue
        record[name] = {"apart": int(apart.max()), "share": float((apart > 0).mean())}
    took: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            # OpenVINO runs in threads of its own, which the clock of this one does not see.
            clock = time.process_time if name == "openvino" else time.thread_time
            for batch in BATCHES if name in ("plain", "openvino") else (1, 16, 32):
                part = latent[:batch], None if label is None else label[:batch]
                took.setdefault((name, batch), []).append(once(run, *part, seconds, clock))
    for (name, batch), values in took.items():
        record[name][str(batch)] = statistics.median(values)
    return record


def lanes(path: Path, rounds: int, seconds: float) -> dict[str, float]:
    """Two sessions of one thread against one session of two threads, at batch 16, by the clock on the wall."""
    content, card = path.read_bytes(), json.loads(path.with_name("card.json").read_text(encoding="utf-8"))
    latent, label = inputs(card, 16)
    shared = runner(session(content))
    sides = {
        "one session, one thread": [shared],
        "one session run by two lanes": [shared, shared],
        "two sessions of one thread": [runner(session(content)), runner(session(content))],
        "one session of two threads": [runner(session(content, 2))],
    }
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, runs in sides.items():
            found.setdefault(name, []).append(together(runs, latent, label, seconds))
    return {name: statistics.median(values) for name, values in found.items()}


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    out = io.StringIO()
    for model, told in record.items():
        out.write(f"\n## {model}\n\nThe last call: {told.get('how', '')} each.\n\n")
        out.write("| attempt | us/image at 1 | at 16 | at 32 | against plain at 16 | largest difference of 255 |\n")
        out.write("|---|---|---|---|---|---|\n")
        plain = told["attempts"].get("plain", {}).get("16")
        for name, (meaning, _) in ATTEMPTS.items():
            row = told["attempts"].get(name)
            if row is None:
                continue
            if "cannot" in row:
                out.write(f"| {name}: {meaning} | - | - | - | - | {row['cannot']} |\n")
                continue
            speed = f"{plain / row['16']:.2f}x" if plain else "-"
            figures = " | ".join(f"{row[str(b)]:.0f}" for b in (1, 16, 32))
            out.write(f"| {name}: {meaning} | {figures} | {speed} | {row['apart']} ({row['share']:.4%} differ) |\n")
        for name in ("plain", "openvino"):
            row = told["attempts"].get(name, {})
            if "64" in row:
                out.write(f"\n{name}, us/image: " + ", ".join(f"batch {b} {row[str(b)]:.0f}" for b in BATCHES) + ".\n")
        if "lanes" in told:
            rows = ", ".join(f"{name} {value:.0f}" for name, value in told["lanes"].items())
            out.write(f"\nBy the clock on the wall at batch 16, us/image: {rows}.\n")
    return out.getvalue()


def main() -> int:
    """Measure, merge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["mnist-projgan", "mnist-dcgan"])
    parser.add_argument("--attempts", nargs="*", choices=ATTEMPTS, default=list(ATTEMPTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--no-lanes", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for name in options.models:
        path = HERE.parent / "models" / name / "1" / "model.onnx"
        told = record.setdefault(name, {"attempts": {}})
        told["attempts"] |= measure(path, options.attempts, options.rounds, options.seconds)
        if not options.no_lanes:
            told["lanes"] = lanes(path, options.rounds, options.seconds)
        told["how"] = f"{options.rounds} rounds of {options.seconds:g} s"
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    head = (
        "# Generators: what an image costs, and what was tried to make it cheaper\n\n"
        f"{os.cpu_count()} cores, {platform.machine()}, onnxruntime {onnxruntime.__version__}. One thread and its CPU "
        "clock unless said otherwise; medians. Made by `python -m benchmarks.generators`.\n"
    )
    (HERE / "generators.md").write_text(head + table(record))
    print(table(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
