"""How a serving process keeps its memory: the C library's allocator, and Python's collector of cycles."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

# Of glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NAMES = ("MALLOC_", "GLIBC_TUNABLES")
# Sheets of many pictures and archives are above, what an answer of a few needs is below.
_MAPPED_BYTES, _KEPT_BYTES = 1 << 19, 1 << 22
# Young objects that are looked through for cycles at once: a request leaves about a hundred, and none in a cycle.
_YOUNG = 20_000


def keep_small() -> None:
    """Let large blocks go back to the system when they are freed; to be called before threads are started.

    glibc maps large blocks apart, but takes each that is freed for a sign that blocks of its size come and go: from
    then on it puts them, up to 32 MiB, among the small ones, which keep what is before them. Under mixed load a service
    creeps (``benchmarks/memory.md``). A threshold that is set stays. What the environment says of ``malloc`` counts for
    more; other C libraries have no such settings.
    """
    if not sys.platform.startswith("linux") or any(name.startswith(_NAMES) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def settle() -> None:
    """Leave what the start has made out of every later look for cycles; to be called when the process is ready."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
