"""How a serving process keeps its memory: the C library's allocator, and Python's collector of cycles."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

# Of glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NAMES = ("MALLOC_", "GLIBC_TUNABLES")
# Sheets of pictures and archives are above, what an answer of one image needs is below.
_MAPPED_BYTES, _KEPT_BYTES = 1 << 19, 1 << 22
# Young objects that are looked through for cycles at once: a request leaves about a hundred, and none in a cycle.
_YOUNG = 20_000


def keep_small() -> None:
    """Let freed memory go back to the system; to be called before threads are started.

    glibc keeps an arena for each thread, and a block of one that was freed goes back only from its end: with lanes and
    encoders of several threads a service under mixed load creeps. One arena, and large blocks apart from it, reach a
    plateau (``benchmarks/soak.md``). What the environment says of ``malloc`` counts for more; other C libraries have
    no such settings.
    """
    if not sys.platform.startswith("linux") or any(name.startswith(_NAMES) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def settle() -> None:
    """Leave what the start has made out of every later look for cycles; to be called when the process is ready."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
