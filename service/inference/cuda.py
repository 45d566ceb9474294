"""Whether there is a GPU: asked of NVIDIA's driver, as onnxruntime would only find out in its log."""

from __future__ import annotations

import ctypes
from typing import Any


def load() -> Any | None:
    """The driver's library, or None."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def problem(driver: Any | None) -> str | None:
    """Why CUDA cannot be used; None if it can. A driver without a device is the usual case on a CPU machine."""
    if driver is None:
        return "no NVIDIA driver"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the driver finds no GPU"
    return None
