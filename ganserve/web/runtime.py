"""onnxruntime-web, which runs graphs in a browser: one pinned version of it, taken from npm.

    python -m ganserve.web.runtime            # into the data folder, where `ganserve web` finds it
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ganserve import errors

VERSION = "1.30.0"
# The part for WebAssembly: its module, its loader, its code. SHA-256 of each.
PINNED = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
SECONDS = 300


@dataclass(frozen=True)
class Runtime:
    """The files of onnxruntime-web, its licence among them."""

    files: tuple[Path, ...]


def kept() -> Path:
    """Where it is kept once it was fetched."""
    return Path(os.environ.get("GANSERVE_DATA") or "var") / f"onnxruntime-web-{VERSION}"


def find(folder: Path | None = None, *, fetching: bool = True) -> Runtime:
    """The runtime in a folder (None: where it is kept, fetched there first if need be).

    Raises:
        errors.Unavailable: a file is missing or not the pinned one, and it cannot be fetched; says what to do.
    """
    place = folder or kept()
    if folder is None and fetching and not place.is_dir():
        fetch(place)
    for name, digest in PINNED.items():
        path = place / name
        if not path.is_file():
            raise errors.Unavailable(f"{place} has no {name} of onnxruntime-web {VERSION}: {_instead()}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise errors.Unavailable(f"{path} is not that of onnxruntime-web {VERSION}: {_instead()}")
    return Runtime((*(place / name for name in PINNED), *_licences()))


def fetch(target: Path) -> None:
    """Take the pinned version from npm into a new folder. Raises errors.Unavailable."""
    npm = shutil.which("npm")
    if npm is None:
        raise errors.Unavailable(f"onnxruntime-web is not here, and there is no npm to fetch it with: {_instead()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnxruntime-web-") as made:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS, cwd=made)
        except (OSError, subprocess.SubprocessError) as error:
            told = getattr(error, "stderr", "") or str(error)
            reason = f"npm cannot fetch onnxruntime-web ({told.strip()[:200]})"
            raise errors.Unavailable(f"{reason}: {_instead()}") from error
        staged = Path(made) / "files"
        staged.mkdir()
        (packed,) = Path(made).glob("*.tgz")
        with tarfile.open(packed) as archive:
            for name in PINNED:
                part = archive.extractfile(f"package/dist/{name}")
                assert part is not None
                (staged / name).write_bytes(part.read())
        find(staged)
        staged.rename(target)


def _licences() -> list[Path]:
    """onnxruntime's, which stand in its Python package: npm's has none beside its name."""
    import onnxruntime

    found = [Path(onnxruntime.__file__).parent / name for name in LICENCES]
    missing = [path.name for path in found if not path.is_file()]
    if missing:
        raise errors.Unavailable(f"onnxruntime is installed without its {' and '.join(missing)}: install it anew")
    return found


def _instead() -> str:
    return f"give the folder `dist` of npm's package onnxruntime-web {VERSION} with --runtime"


def main() -> int:
    """Fetch it, unless it is there."""
    try:
        find()
    except errors.Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(kept())
    return 0


if __name__ == "__main__":
    sys.exit(main())
