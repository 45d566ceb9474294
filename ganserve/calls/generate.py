"""ganserve generate --label 3 -n 16 -o grid.png

ganserve generate -n 1000 --seed 0 -o thousand.npz
ganserve generate --local models/mnist-projgan --label 3 7 -n 16 -o grid.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ganserve import calls
from ganserve.images import Images


def main(arguments: Sequence[str]) -> int:
    """Write images to a file; returns the exit status."""
    given = _options().parse_args(arguments)
    return calls.run(lambda: _write(given))


def _options() -> argparse.ArgumentParser:
    options = calls.parser("generate", "Images of a server, or of a model's folder without one, as a file.")
    calls.add_url(options)
    options.add_argument("--local", metavar="FOLDER", help="run the model in this folder of a repository; no server")
    options.add_argument("--label", nargs="+", help="names or indices, taken in turn; the classes in turn without it")
    options.add_argument("-n", type=int, help="how many; 1 without it")
    options.add_argument("--seed", type=int, help="of the first image, the others follow; drawn without it")
    options.add_argument("--truncation", type=float, help="above 0, up to 1: scales latents, for more typical images")
    options.add_argument("--model", help="the server's default one without it")
    options.add_argument("--version", type=int, help="the live one without it")
    options.add_argument(
        "-o", "--output", default="images.png", help=".png or .webp a grid, .zip, .npz, .json (images.png)"
    )
    options.add_argument("--columns", type=int, help="of the grid; as many as rows without it")
    options.add_argument("--scale", type=int, default=1, choices=range(1, 33), metavar="1..32", help="of the grid (1)")
    options.add_argument("--quiet", action="store_true", help="no progress bar")
    return options


def _write(given: argparse.Namespace) -> None:
    images = _made(given)
    path = images.save(given.output, columns=given.columns, scale=given.scale)
    print(f"{path}: {len(images)} images of {images.model} version {images.version}, seed {images.seeds[0]}")


def _made(given: argparse.Namespace) -> Images:
    label: Any = given.label[0] if given.label is not None and len(given.label) == 1 else given.label
    asked = {"model": given.model, "version": given.version, "truncation": given.truncation}
    asked["progress"] = not given.quiet
    if given.local is None:
        with calls.connect(given) as client:
            return client.generate(label, given.n, given.seed, **asked)
    from ganserve.generator import Generator

    return Generator(given.local).generate(label, given.n, given.seed, **asked)
