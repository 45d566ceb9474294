"""PNG encoders: microseconds and bytes of each on sheets of generated digits and on a colour picture with noise.

    python -m benchmarks.png          # ours, Pillow, zlib's levels and strategies; isal and zlib-ng where installed

Every encoding is decoded and compared with the pixels that went in. Time is the thread's CPU time.
"""

from __future__ import annotations

import importlib
import io
import statistics
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganserve import encode, png
from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from service.inference.engine import OnnxEngine, Placement

HERE = Path(__file__).parent
Pixels = NDArray[np.uint8]


def sheets() -> dict[str, Pixels]:
    """Grids of 1, 16 and 256 digits, and of 16 colour tiles that vary smoothly, with a little noise."""
    card, content = Repository(HERE.parent / "models").read("mnist-projgan", 1)
    engine = OnnxEngine.open(card, content, Placement(max_rows=256))
    found = {}
    for n in (1, 16, 256):
        noise = latents(card.latent_recipe, consecutive(5, n), card.z)
        found[f"{n} digits"] = encode.grid(engine.run(noise, np.full(n, 3, np.int64)))
    draw = np.random.default_rng(0)
    y, x = np.mgrid[0:32, 0:32]
    planes = [127 + 90 * np.sin(x / 9 + draw.random() * 6) + 60 * np.cos(y / 7 + draw.random() * 6) for _ in range(48)]
    tiles = np.stack(planes).reshape(16, 3, 32, 32).transpose(0, 2, 3, 1) + draw.normal(0, 4, (16, 32, 32, 3))
    found["16 colour tiles"] = encode.grid(np.clip(tiles, 0, 255).astype(np.uint8))
    return found


def pillow(level: int) -> Callable[[Pixels], bytes]:
    """Pillow, which chooses among all filters row by row."""

    def encoded(sheet: Pixels) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet).save(buffer, "PNG", compress_level=level)
        return buffer.getvalue()

    return encoded


def packed(pack: Callable[[bytes], bytes], up: bool) -> Callable[[Pixels], bytes]:
    """One filter for all rows (none, or the difference to the row above), then ``pack``."""

    def encoded(sheet: Pixels) -> bytes:
        height, width, channels = sheet.shape
        rows = np.empty((height, 1 + width * channels), np.uint8)
        pixels = sheet.reshape(height, -1)
        rows[:, 0], rows[:, 1:] = (2 if up else 0), pixels
        if up:
            np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
        head = png.encode(sheet[:1])[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big")
        head += bytes([8, 0 if channels == 1 else 2, 0, 0, 0])
        data = b"IDAT" + pack(rows.tobytes())
        parts = [head, zlib.crc32(head[12:]).to_bytes(4, "big"), (len(data) - 4).to_bytes(4, "big"), data]
        parts += [zlib.crc32(data).to_bytes(4, "big"), png.encode(sheet[:1])[-12:]]
        return b"".join(parts)

    return encoded


def deflate(level: int, strategy: int) -> Callable[[bytes], bytes]:
    """zlib."""

    def pack(data: bytes) -> bytes:
        packer = zlib.compressobj(level, zlib.DEFLATED, 15, 8, strategy)
        return packer.compress(data) + packer.flush()

    return pack


def compress(library: Any, level: int) -> Callable[[bytes], bytes]:
    """Another library with zlib's interface."""

    def pack(data: bytes) -> bytes:
        packed: bytes = library.compress(data, level)
        return packed

    return pack


def encoders() -> dict[str, Callable[[Pixels], bytes]]:
    """Everything that can be tried here."""
    found: dict[str, Callable[[Pixels], bytes]] = {"ours": png.encode}
    found |= {f"Pillow, level {level}": pillow(level) for level in (1, 6)}
    packs: dict[str, Callable[[bytes], bytes]] = {f"zlib {level}": deflate(level, 0) for level in (1, 6)}
    packs |= {"zlib runs": deflate(1, zlib.Z_RLE), "zlib Huffman": deflate(1, zlib.Z_HUFFMAN_ONLY)}
    for title, module, levels in (("isal", "isal.isal_zlib", (0, 1)), ("zlib-ng", "zlib_ng.zlib_ng", (1, 2))):
        try:
            library: Any = importlib.import_module(module)
        except ImportError:
            continue
        for level in levels:
            packs[f"{title} {level}"] = compress(library, level)
    for name, pack in packs.items():
        found[f"{name}, no filter"] = packed(pack, False)
        found[f"{name}, up"] = packed(pack, True)
    return found


def main() -> int:
    """Measure, write ``png.md``."""
    pictures = sheets()
    lines = ["# PNG encoders", ""]
    lines.append("Microseconds of CPU time and bytes, median of 9 rounds; decoded pixels are identical.")
    lines += ["", "| encoder | " + " | ".join(pictures) + " |", "|---" * (1 + len(pictures)) + "|"]
    for name, encoder in encoders().items():
        cells = []
        for sheet in pictures.values():
            decoded = np.asarray(Image.open(io.BytesIO(encoder(sheet))))
            if not np.array_equal(decoded.reshape(sheet.shape), sheet):
                raise RuntimeError(f"{name} changes pixels")
            times = []
            for _ in range(9):
                begun = time.thread_time()
                for _ in range(3):
                    encoder(sheet)
                times.append((time.thread_time() - begun) / 3)
            cells.append(f"{statistics.median(times) * 1e6:.0f} us, {len(encoder(sheet))} B")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Ours is runs without a filter for grey, up for colour. isal would be faster by 0.1 ms at 16"]
    lines += ["digits (of some 5 ms in the network) and needs a compiled package more, so it is not used."]
    lines += ["", "Made by `python -m benchmarks.png`."]
    (HERE / "png.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
