"""ganserve upload pets ./pets

ganserve upload pets pets.zip
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ganserve import calls


def main(arguments: Sequence[str]) -> int:
    """Send a data set; returns the exit status."""
    options = calls.parser("upload", "Send a server your own labelled images, CLASS/IMAGE. Needs the admin token.")
    calls.add_url(options)
    options.add_argument("name", metavar="NAME", help="of the data set: small letters, digits and -")
    options.add_argument("source", metavar="FOLDER|ZIP", help="a folder of class folders, or a ZIP of them")
    options.add_argument("--quiet", action="store_true", help="no progress bar")
    given = options.parse_args(arguments)
    return calls.run(lambda: _send(given))


def _send(given: argparse.Namespace) -> None:
    with calls.connect(given) as client:
        kept = client.upload(given.name, given.source, progress=not given.quiet)
    print(f"{kept.name}: {kept.images} images of {len(kept.classes)} classes are kept")
