"""A labelled colour set of 64 pixels from a font of pictures: class folders of PNGs, one object a picture.

    python -m benchmarks.emoji FOLDER        # needs Debian's fonts-noto-color-emoji and unicode-data
    ganserve train --dataset FOLDER --size 64

The font has each picture as a bitmap of 136 x 128 pixels, which is made smaller, never larger. Classes are Unicode's
groups; variants of skin are left out, since they are the same picture five times, and so is what the font draws as
several pictures side by side.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
GROUPS = Path("/usr/share/unicode/emoji/emoji-test.txt")
# The one size that the font has bitmaps of, and the width of one of them.
SIZE, WIDTH = 109, 136
SKINS = range(0x1F3FB, 0x1F400)
EDGE = 64


def listed(lines: list[str]) -> dict[str, list[str]]:
    """Texts of emoji by group, from Unicode's list of them."""
    found: dict[str, list[str]] = {}
    group = ""
    for line in lines:
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ").strip().split(" &")[0].lower()
        elif "; fully-qualified" in line:
            points = [int(point, 16) for point in line.partition(";")[0].split()]
            if not any(point in SKINS for point in points):
                found.setdefault(group, []).append("".join(map(chr, points)))
    return found


def drawn(text: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """The picture on white, RGB [64, 64]; None where the font has not one picture of it."""
    if font.getlength(text) > WIDTH:
        return None
    canvas = Image.new("RGB", (WIDTH, WIDTH), "white")
    ImageDraw.Draw(canvas).text((0, 0), text, font=font, embedded_color=True)
    if canvas.getcolors(1) is not None:
        return None
    return canvas.resize((EDGE, EDGE), Image.Resampling.LANCZOS)


def main() -> None:
    """Write the folder."""
    folder = Path(sys.argv[1])
    font = ImageFont.truetype(str(FONT), SIZE)
    for group, texts in listed(GROUPS.read_text().splitlines()).items():
        pictures = [picture for text in texts if (picture := drawn(text, font)) is not None]
        if len(pictures) > 50:
            (folder / group).mkdir(parents=True)
            for number, picture in enumerate(pictures):
                picture.save(folder / group / f"{number:04}.png")
            print(f"{group}: {len(pictures)}")


if __name__ == "__main__":
    main()
