"""The commands that call a server, each a module with ``main(arguments)``; and what they share.

The address is ``--url``, else ``GANSERVE_URL``; the token is ``GANSERVE_TOKEN`` alone, as arguments are seen by others
on the machine. What fails is one sentence on standard error, and exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ganserve import errors
from ganserve.client import Client

FAILED = 2
INTERRUPTED = 130


def parser(name: str, told: str) -> argparse.ArgumentParser:
    """A command's options, to be added to."""
    return argparse.ArgumentParser(
        prog=f"ganserve {name}",
        description=told,
        epilog="GANSERVE_TOKEN is sent as the bearer token, where it is set.",
    )


def add_url(options: argparse.ArgumentParser) -> None:
    """The server's address."""
    options.add_argument("--url", help="address of the server; GANSERVE_URL without it, else http://127.0.0.1:8000")


def connect(given: argparse.Namespace) -> Client:
    """A client of the server that the options name."""
    return Client(given.url)


def run(work: Callable[[], None]) -> int:
    """Do it; the exit status."""
    try:
        work()
    except (errors.Unauthorized, errors.Forbidden) as error:
        return _failed(f"{error}; this command sends what GANSERVE_TOKEN holds")
    except (errors.GanserveError, OSError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _failed(reason: str) -> int:
    print(f"error: {' '.join(reason.split())}", file=sys.stderr)
    return FAILED


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows in columns as wide as they need; nothing in them breaks a line."""
    cells = [[plain(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(heads))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def plain(cell: object) -> str:
    """Names come from others: what a terminal would obey is shown as a question mark."""
    text = "-" if cell is None else str(cell)
    return "".join(letter if letter.isprintable() else "?" for letter in text)
