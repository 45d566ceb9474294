"""What signals mean to a program that serves or works for long, beside SIGTERM and SIGINT, which it handles itself."""

from __future__ import annotations

import signal

# Other programs reload, reopen or report at these; by default they would end this one, with all that it has begun.
_MEANINGLESS = ("SIGUSR1", "SIGUSR2", "SIGALRM")


def heed() -> None:
    """From now on the end of the terminal is told as SIGTERM is, and signals that mean nothing here end nothing.

    What is ignored or handled already stays so: ``nohup`` ignores the end of the terminal. On the main thread only.
    """
    for name in _MEANINGLESS:
        if (number := _unhandled(name)) is not None:
            # A child process begins with it ignored.
            signal.signal(number, signal.SIG_IGN)
    if (number := _unhandled("SIGHUP")) is not None:
        signal.signal(number, lambda received, frame: signal.raise_signal(signal.SIGTERM))


def _unhandled(name: str) -> int | None:
    """The signal's number, where the system has it and nobody has said what it means."""
    number = getattr(signal, name, None)
    return number if number is not None and signal.getsignal(number) == signal.SIG_DFL else None
