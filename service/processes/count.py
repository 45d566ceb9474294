"""How many processes serve, where nobody has said."""

from __future__ import annotations

import socket
import tempfile

from ganserve import machine
from ganserve.settings import Settings
from service.inference.engine import CPU, providers

# More serve no faster from one port than a second machine would.
MOST = 8
# The peak of one process under load (benchmarks/serving.md), and what it may grow by with the models it loads.
PROCESS_BYTES = 160 << 20
ROOM = 2


def decide(settings: Settings) -> tuple[int, str]:
    """The number of processes, and the reason in words.

    Raises:
        DeviceUnavailable: CUDA was asked for and is not there.
    """
    if settings.workers != "auto":
        return settings.workers, "as set"
    if settings.upstream is not None:
        return 1, "another server runs the generators"
    if providers(settings.device)[1] != CPU:
        return 1, "CUDA runs the generators"
    if not hasattr(socket, "send_fds"):
        return 1, "this system cannot hand a connection to another process"
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return 1, "several share a folder, and no folder for temporary files can be written"
    memory = machine.memory()
    bounds = {
        f"{settings.cores} core{'s' if settings.cores > 1 else ''}": settings.cores,
        f"at most {MOST}": MOST,
        # A request finds room in the share of one process.
        "each with room for the largest request in its share of the queue": min(
            settings.max_queued_images, settings.queue_limit
        )
        // settings.image_limit,
    }
    if memory is not None:
        bounds[f"{memory >> 20} MiB of memory, {ROOM * PROCESS_BYTES >> 20} for each"] = memory // ROOM // PROCESS_BYTES
    why, count = min(bounds.items(), key=lambda bound: bound[1])
    return max(1, count), why
