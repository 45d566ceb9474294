"""The same bytes on processors that this machine can only emulate: minutes, so only when asked for (``-m slow``)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.exact import PROOF
from tests.training.exact.generators import RANGES, generator
from training.exact import export

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-x86_64 of Debian's qemu-user is not installed")
@pytest.mark.parametrize("processor", ["Nehalem", "SandyBridge", "Haswell-noTSX"])
def test_an_older_processor_gives_the_same_bytes(processor: str, tmp_path: Path) -> None:
    """Nehalem has SSE4.2, SandyBridge AVX, Haswell AVX2 and fused multiply-add; none of them has VNNI."""
    for name in ("projection", "mlp-bn labelled", "cdcgan", "dcgan colour"):
        recipe = "philox-uniform/v1" if name in RANGES else "philox-normal/v1"
        asked = {"latent_recipe": recipe, "image_range": RANGES.get(name, (-1.0, 1.0))}
        made = export(generator(name), metadata={}, calibration=128, **asked)  # type: ignore[arg-type]
        path = tmp_path / "model.onnx"
        path.write_bytes(made.content)
        program = [sys.executable, "-c", PROOF, made.latent_recipe, str(made.program.z), str(made.program.classes)]
        # numpy's linear algebra takes a processor without AVX for one with it.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_CORETYPE": "Nehalem"}
        command = ["qemu-x86_64", "-cpu", processor, *program, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=600)
        assert done.stdout.split() == ["digest", made.digest], name
