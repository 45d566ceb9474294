"""What the training command does for its process before it trains."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

# A step's features, all freed at its end, 192 MB: prints how large the heap is then (mallinfo2's first figure).
STEPS = """
import ctypes, torch
from training.networks.fast import keep_memory
keep_memory()
class Told(ctypes.Structure):
    _fields_ = [(f"figure{index}", ctypes.c_size_t) for index in range(10)]
tell = ctypes.CDLL(None).mallinfo2
tell.restype = Told
for _ in range(3):
    features = [torch.ones(6_000_000) for _ in range(8)]
    del features
print(tell().figure0)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the setting is glibc's, told of since 2.33")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run([sys.executable, "-c", STEPS], env=environment, capture_output=True, text=True, check=True)
    assert int(told.stdout) > 192_000_000
