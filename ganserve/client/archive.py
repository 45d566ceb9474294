"""A data set on its way to the server: a ZIP as it is, or a folder of class folders as one."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from ganserve import entries, errors, kinds, metadata

PART_BYTES = 1 << 18


class Source:
    """The bytes of an archive; a context, as a folder's ZIP is a file without a name that goes with it.

    Raises:
        errors.Invalid: no ZIP, and no folder of class folders.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            self._file: IO[bytes] = _packed(path)
        elif path.is_file() and zipfile.is_zipfile(path):
            self._file = path.open("rb")
        else:
            reason = "is neither a ZIP nor a folder" if path.exists() else "is not there"
            raise errors.Invalid(f"{path} {reason}: expected a ZIP or a folder of class folders")
        self.size = self._file.seek(0, 2)

    def parts(self, tell: Callable[[int], None]) -> Iterator[bytes]:
        """The content from its beginning; ``tell`` hears how many bytes have gone."""
        self._file.seek(0)
        sent = 0
        while part := self._file.read(PART_BYTES):
            yield part
            sent += len(part)
            tell(sent)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _packed(folder: Path) -> IO[bytes]:
    """A ZIP of the folder's files, hidden ones left out: images are compressed already, so it only stores."""
    try:
        kept = [(path, name) for path, name in entries.folder_files(folder) if not entries.clutter(name)]
    except entries.SetError as error:
        raise errors.Invalid(str(error)) from error
    if not any("/" in name or metadata.is_metadata(name) for _, name in kept):
        raise errors.Invalid(f"{folder} has no class folders with images: expected {folder.name}/CLASS/IMAGE")
    if lost := [name for path, name in kept if kinds.called_picture(name) and not os.path.exists(path)]:
        raise errors.Invalid(f"{lost[0]} cannot be read: it is a link to nothing")
    file = tempfile.TemporaryFile()  # noqa: SIM115  Source closes it
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for path, name in kept:
            if os.path.isfile(path):
                archive.write(path, name)
    return file
