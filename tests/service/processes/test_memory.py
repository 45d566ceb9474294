"""What a serving process asks of the C library's allocator and of Python's collector, each tried in a process."""

import ctypes
import gc
import os
import subprocess
import sys

import pytest

from service.processes import memory

# By itself the allocator keeps blocks of a size among the small ones, once one of that size was freed.
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
def test_what_the_environment_says_of_malloc_counts_for_more() -> None:
    assert told(LARGE_BLOCKS, "small", MALLOC_PERTURB_="0") == 0


def test_a_ready_process_looks_no_more_at_what_its_start_has_made() -> None:
    before = gc.get_threshold()
    try:
        memory.settle()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] > before[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
