"""What this process may use of the machine: cores, memory, descriptors, by affinity and control groups; and Python."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# What version 1 writes where there is no limit, and anything near it.
_NO_LIMIT = 1 << 60


def python(module: str) -> tuple[str, ...]:
    """The command that runs a module of these packages in a process of its own.

    ``python -m`` looks into the current folder first, where a user may keep a folder ``training`` of their own.
    """
    at_home = Path.cwd() == Path(__file__).resolve().parents[1]
    return (sys.executable, *(() if at_home else ("-P",)), "-m", module)


def cores(root: Path = Path("/")) -> int:
    """Whole cores, at least one: those of the affinity, or what the quota of a control group comes to if it is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(allowed, quota(root))))


def quota(root: Path = Path("/")) -> float:
    """Cores that the control groups allow, in time; infinite without a limit."""
    found = [math.inf]
    for folder in _groups(root, "cpu"):
        # "max 100000" or "150000 100000"; version 1 has a file for each, and -1 for no limit.
        words = (_read(folder / "cpu.max") or "").split()
        if not words:
            words = [_read(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[0]) and int(words[1]):
            found.append(int(words[0]) / int(words[1]))
    return min(found)


def memory(root: Path = Path("/")) -> int | None:
    """Bytes: the least of the machine's memory and the limits of the control groups; None where nothing tells."""
    found = []
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            found.append(int(line.split()[1]) * 1024)
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            word = _read(folder / name)
            if word is not None and word.isdecimal() and int(word) < _NO_LIMIT:
                found.append(int(word))
    return min(found, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups that this process is in, each with those above it, whose limits hold as well."""
    mounted = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = mounted
        elif controller in controllers.split(","):
            base = next((mounted / name for name in (controllers, controller) if (mounted / name).is_dir()), mounted)
        else:
            continue
        # Within a container the path may be that of the host, which is not there: then the top is the container's own.
        folder = base / path.lstrip("/")
        while folder != base:
            yield folder
            folder = folder.parent
        yield base


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def descriptors() -> int:
    """Descriptors that this process may have, after raising their limit as far as the system allows."""
    if sys.platform == "win32":
        return 2048
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Without a limit, the kernel's own for one process still holds; this is beyond what anyone needs.
    wanted = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            # As many as there are have to do.
            return soft
    return wanted if soft == resource.RLIM_INFINITY else soft
