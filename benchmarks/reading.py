"""Reading sets of pictures: pictures a second of a plain loop, of ours on one core and on all, and read again.

    python -m benchmarks.reading [--photos 24] [--small 4000] [--rounds 5]

Photos are JPEGs of 12 megapixels, small ones PNGs of 28 x 28; the small ones are in class folders, in a ZIP of them,
and in a Parquet file as the hub keeps them. The plain loop decodes each picture whole, one after the other, and resizes
it as ours does; it starts from the files' names, and from the table's cells for Parquet. Times are of the whole way
from the set's name to the array.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganserve import reading
from training.data import load

HERE = Path(__file__).parent
WIDTH, HEIGHT = 4000, 3000
PHOTO_EDGE, SMALL_EDGE = 64, 28


@dataclass(frozen=True)
class Set:
    """What is read: its name for the table, its place, the edge to read it at, and the plain way to its bytes."""

    title: str
    place: Path
    count: int
    edge: int
    plain: Callable[[], Iterator[bytes]]


def photo(index: int) -> Image.Image:
    """Soft shapes, an edge, and a sensor's noise, 4000 x 3000: 2 MB as a JPEG, like a phone's."""
    draw = np.random.default_rng(index)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    planes = [110 + 70 * np.sin(x / draw.uniform(40, 900)) * np.cos(y / draw.uniform(40, 900)) for _ in range(3)]
    pixels = np.stack(planes, -1) + 40 * (x > y)[..., None] + draw.normal(0, 5, (HEIGHT, WIDTH, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def sets(root: Path, photos: int, small: int) -> list[Set]:
    """The four sets, made below ``root``."""
    for index in range(photos):
        _save(photo(index), root / "photos" / "ab"[index % 2] / f"{index}.jpg", quality=85)
    draw = np.random.default_rng(0)
    for index in range(small):
        grey = np.clip(np.outer(draw.random(28), draw.random(28)) * 255, 0, 255).astype(np.uint8)
        _save(Image.fromarray(grey), root / "small" / "ab"[index % 2] / f"{index}.png")
    files = sorted((root / "small").rglob("*.png"))
    with zipfile.ZipFile(root / "small.zip", "w") as archive:
        for path in files:
            archive.write(path, path.relative_to(root))
    (root / "hub").mkdir()
    _parquet(files, root / "hub" / "train.parquet")
    return [
        Set("photos, 12 MP JPEG", root / "photos", photos, PHOTO_EDGE, lambda: _files(root / "photos")),
        Set("small PNGs, folders", root / "small", small, SMALL_EDGE, lambda: _files(root / "small")),
        Set("small PNGs, ZIP", root / "small.zip", small, SMALL_EDGE, lambda: _members(root / "small.zip")),
        Set("small PNGs, Parquet", root / "hub", small, SMALL_EDGE, lambda: _cells(root / "hub")),
    ]


def _save(image: Image.Image, path: Path, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **more)


def _parquet(files: list[Path], path: Path) -> None:
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    cells = [{"bytes": file.read_bytes(), "path": None} for file in files]
    labels = [file.parent.name for file in files]
    datasets.Dataset.from_dict({"image": cells, "label": labels}, features=kinds).to_parquet(str(path))


def _files(root: Path) -> Iterator[bytes]:
    for path in sorted(root.rglob("*.*g")):
        yield path.read_bytes()


def _members(path: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            yield archive.read(name)


def _cells(root: Path) -> Iterator[bytes]:
    import datasets

    table = datasets.load_dataset(str(root), split="train").cast_column("image", datasets.Image(decode=False))
    for cell in table["image"]:
        yield cell["bytes"]


def plain(contents: Iterator[bytes], edge: int) -> NDArray[np.uint8]:
    """Each picture decoded whole, in colour, its centred square resized: uint8 [n, 3, edge, edge]."""
    rows = []
    for content in contents:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        box = (left, top, left + short, top + short)
        rows.append(np.asarray(image.resize((edge, edge), Image.Resampling.BICUBIC, box=box)))
    return np.stack(rows).transpose(0, 3, 1, 2)


def ours(made: Set, workers: int | None) -> NDArray[np.uint8]:
    """The same array, as training reads it."""
    return load(str(made.place), size=made.edge, channels=3, workers=workers).images.numpy()


def timed(
    function: Callable[[], NDArray[np.uint8]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, NDArray[np.uint8]]:
    """The best of the rounds in seconds, since other work on the machine only adds, and what it gave."""
    times = []
    for _ in range(rounds):
        begun = clock()
        given = function()
        times.append(clock() - begun)
    return min(times), given


def row(made: Set, rounds: int) -> str:
    """A line of the table; raises RuntimeError where ours gives other pictures."""
    before, expected = timed(lambda: plain(made.plain(), made.edge), rounds, time.process_time)
    reading.KEPT_SECONDS = float("inf")
    one, given = timed(lambda: ours(made, 1), rounds, time.process_time)
    cores, _ = timed(lambda: ours(made, None), rounds)
    reading.KEPT_SECONDS = -1.0
    ours(made, None)
    again, kept = timed(lambda: ours(made, None), rounds)
    apart = np.abs(given.astype(int) - expected).mean()
    if apart > 1 or not np.array_equal(given, kept):
        raise RuntimeError(f"{made.title}: other pictures than the plain loop's, by {apart:.2f} grey levels")
    cells = [f"{made.count / seconds:,.0f}" for seconds in (before, one, cores, again)]
    return f"| {made.title} | {' | '.join(cells)} | {before / one:.1f}x | {apart:.2f} |"


def main() -> int:
    """Measure, write ``reading.md``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading")
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--small", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GANSERVE_DATA"] = str(Path(folder) / "var")
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder) / "hub-cache")
        rows = [row(made, options.rounds) for made in sets(Path(folder), options.photos, options.small)]
    lines = ["# Reading sets of pictures", ""]
    lines.append(f"Pictures a second, best of {options.rounds} rounds: of CPU time in the plain loop and on one core,")
    lines.append(f"of time on all {reading.threads()} cores, and of time where what was read is kept.")
    lines.append("Ours also looks at each picture's kind, colour and twins.")
    lines += ["", "| set | plain loop | one core | all cores | kept | one core / plain | grey levels apart |"]
    lines += ["|---" * 7 + "|", *rows, "", "Made by `python -m benchmarks.reading`."]
    (HERE / "reading.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
