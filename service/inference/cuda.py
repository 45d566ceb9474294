"""The few calls to NVIDIA's driver that onnxruntime has no name for: pinned host memory, and copies into it.

Without a driver, or where a call fails, nothing here is needed: the engine copies through ordinary memory.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Usable from every thread and context, as an engine may be closed by another thread than opened it.
_PORTABLE = 1

log = logging.getLogger(__name__)


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


class Pinned:
    """Pinned buffers, kept for the next engine when one is closed: pinning again is slow, and unpinning needs the
    context of the thread that pinned.

    Args:
        driver: as :func:`load` gives it.
    """

    def __init__(self, driver: Any | None) -> None:
        self._driver = driver
        self._free: dict[int, list[int]] = {}
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """An array in pinned memory; in ordinary memory where the driver refuses.

        To be called from a thread on which onnxruntime has opened a CUDA session.
        """
        kind: np.dtype[Any] = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        address = self._take(size)
        if address is None:
            return np.empty(shape, kind)
        buffer = (ctypes.c_uint8 * size).from_address(address)
        weakref.finalize(buffer, self._give_back, size, address).atexit = False
        pixels: NDArray[Any] = np.ctypeslib.as_array(buffer).view(kind).reshape(shape)
        return pixels

    def fetch(self, host: NDArray[Any], device: int) -> bool:
        """Copy from device memory at the address ``device`` into ``host``; False if the driver will not."""
        if self._driver is None:
            return False
        status = self._driver.cuMemcpyDtoH_v2(
            ctypes.c_void_p(host.ctypes.data), ctypes.c_void_p(device), ctypes.c_size_t(host.nbytes)
        )
        return bool(status == 0)

    def _take(self, size: int) -> int | None:
        if self._driver is None:
            return None
        with self._lock:
            if known := self._free.get(size):
                return known.pop()
        made = ctypes.c_void_p()
        status = self._driver.cuMemHostAlloc(ctypes.byref(made), ctypes.c_size_t(size), ctypes.c_uint(_PORTABLE))
        if status != 0 or made.value is None:
            log.warning("the driver pins no memory (status %s): copies go through ordinary memory", status)
            return None
        return made.value

    def _give_back(self, size: int, address: int) -> None:
        with self._lock:
            self._free.setdefault(size, []).append(address)
