"""Show that a change of the code moved nothing for users: record a checkout, record another, compare.

    python -m benchmarks.unmoved record CHECKOUT OUT.json [--models FOLDER] [--only calls training commands]
    python -m benchmarks.unmoved compare benchmarks/unmoved.json AFTER.json

A checkout is driven from outside alone: processes, HTTP, command lines, files. So a record can be taken of any version
whatever its modules are called. A record holds the answers to some hundreds of calls (status, headers, digests of
bodies, and short JSON as it is), ``openapi.json``, the weights and logs of short runs of every recipe, what exports,
the evaluation and a whole retraining job gave, and the options and refusals of every command. What two records of one
version differ in (times, drawn seeds, drawn ids, rates) is masked in the record.

``compare`` ends with 1 and says what was lost or differs. ``openapi.json``, a run's ``config.json``, cards and options
may gain. Weights are those of one machine: where the processor or a library is another, the comparison says so.
"""

from __future__ import annotations

import argparse
import base64
import json
import platform
import sys
import tempfile
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.unmoved import calls, commands, training
from benchmarks.unmoved.checkout import Checkout
from benchmarks.unmoved.compare import compare

LIBRARIES = ("numpy", "onnxruntime-gpu", "onnxruntime", "onnx", "pillow", "pyarrow", "torch", "fastapi", "uvicorn")
PARTS = ("calls", "training", "commands")


def machine() -> dict[str, Any]:
    """What weights and bytes may depend on besides the code."""
    found: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found["processor"] = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    return found


def record(root: Path, models: Path, parts: list[str]) -> dict[str, Any]:
    """Everything that is recorded of a checkout."""
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="unmoved-") as place:
        checkout = Checkout(root.resolve(), models.resolve(), Path(place))
        answers = calls.take(checkout, everything="calls" in parts)
        recipes = answers.pop("recipes")
        found |= answers
        if "training" in parts:
            found |= training.take(checkout, recipes)
        if "commands" in parts:
            found["commands"] = commands.take(checkout)
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """One line an entry, so that a difference of two records is one of lines."""
    lines = []
    packed = {name: value for name, value in found.items() if name != "openapi"}
    if "openapi" in found:
        # It is long, and itself generated: only comparisons read it.
        text = json.dumps(found["openapi"], ensure_ascii=False, separators=(",", ":"))
        packed["openapi"] = {"packed": base64.b85encode(zlib.compress(text.encode(), 9)).decode()}
    for part, content in packed.items():
        dense = {"ensure_ascii": False, "separators": (",", ":")}
        rows = [f"  {json.dumps(name)}: {json.dumps(value, **dense)}" for name, value in content.items()]  # type: ignore[arg-type]
        lines.append(f" {json.dumps(part)}: {{\n" + ",\n".join(rows) + "\n }")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """The inverse of :func:`write`."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "openapi" in found:
        found["openapi"] = json.loads(zlib.decompress(base64.b85decode(found["openapi"]["packed"])))
    return found


def main() -> int:
    """Record or compare."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unmoved", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    recording = actions.add_parser("record", help="what a checkout does, as JSON")
    recording.add_argument("checkout", type=Path)
    recording.add_argument("out", type=Path)
    recording.add_argument("--models", type=Path, help="models served (a copy of them); the checkout's by default")
    recording.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    comparing = actions.add_parser("compare", help="what differs between two records")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.action == "record":
        models = options.models or options.checkout / "models"
        found = record(options.checkout, models, options.only)
        write(options.out, found)
        print(", ".join(f"{part}: {len(content)}" for part, content in found.items()))
        return 0
    differences, notes = compare(read(options.before), read(options.after))
    for line in notes:
        print(f"note: {line}")
    for line in differences:
        print(line)
    print(f"{len(differences)} differences" if differences else "nothing moved")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
