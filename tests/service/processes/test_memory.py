"""What a serving process asks of the C library's allocator and of Python's collector, each tried in a process."""

import ctypes
import gc
import os
import subprocess
import sys

import pytest

from service.processes import memory

# What the allocator does by itself is to keep ever larger blocks within its arenas, once one of their size was freed.
LARGE_BLOCKS = """
import ctypes, sys
from service.processes import memory
if sys.argv[1] == "small":
    memory.keep_small()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
class Told(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "rest1", "rest2",
                                                    "rest3", "rest4", "rest5", "rest6")]
libc.mallinfo2.restype = Told
libc.free(libc.malloc(1 << 22))
before = libc.mallinfo2().hblks
kept = libc.malloc(1 << 20)
print(libc.mallinfo2().hblks - before)
"""
ARENAS = """
import ctypes, os, sys, threading
from service.processes import memory
if sys.argv[1] == "small":
    memory.keep_small()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
libc.fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fflush.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
together = threading.Barrier(4)
def work():
    together.wait()
    libc.malloc(10_000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
read, written = os.pipe()
file = libc.fdopen(written, b"w")
libc.malloc_info(0, file)
libc.fflush(file)
print(os.read(read, 1 << 16).count(b"<heap nr="))
"""

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is not glibc 2.33")


def told(script: str, how: str, **environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run(
        [sys.executable, "-c", script, how], env=clean | environment, capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@glibc
def test_a_large_block_stands_apart_so_that_it_goes_back_when_it_is_freed() -> None:
    assert (told(LARGE_BLOCKS, "as it is"), told(LARGE_BLOCKS, "small")) == (0, 1)


@glibc
def test_threads_share_one_arena() -> None:
    assert told(ARENAS, "as it is") > 1
    assert told(ARENAS, "small") == 1


@glibc
def test_what_the_environment_says_of_malloc_counts_for_more() -> None:
    assert told(ARENAS, "small", MALLOC_ARENA_MAX="3") == 3


def test_a_ready_process_looks_no_more_at_what_its_start_has_made() -> None:
    before = gc.get_threshold()
    try:
        memory.settle()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] > before[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
