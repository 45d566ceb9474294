"""The model repository: cards, versions, the live pointer; read, publish, promote, roll back, remove.

The layout is NVIDIA Triton's, so that ``tritonserver --model-repository=models`` serves the same folder::

    models/<name>/config.pbtxt              derived from the live version's card, never edited
    models/<name>/live.json                 the pointer that ganserve follows
    models/<name>/<version>/model.onnx      immutable
    models/<name>/<version>/card.json
    models/<name>/<version>/samples.png
    models/<name>/<version>/weights.safetensors  beside an exact version: what a training can begin from
    models/<name>/<version>/report.json     what its training logged, thinned: the curves of its report
    models/<name>/<version>/measures.jsonl  measurements, one a line; no part of what the version promises
    models/<name>/.highest                  the highest version ever given, so that none is given again
    models/<name>/.jobs/<id>                the number of a job's version, noted before the version is there
    models/<name>/.removed                  versions that were taken away for good
    models/<name>/.lock                     held by whoever writes, in a folder

A version never changes once it is there; only measurements are added beside it. It can be removed for good. In an
object store (:mod:`ganserve.bucket`) the same names are keys, nobody holds a lock, and the same code comes to the same
end: what it writes is created only where nothing stands, or replaced only where it is still as it was read.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Set
from datetime import UTC, datetime
from types import EllipsisType
from typing import Any

from ganserve import signature
from ganserve.card import (
    LivePointer,
    ModelUnreadable,
    PointerMoved,
    VersionLive,
    VersionNotFound,
    VersionRemoved,
    to_json,
)
from ganserve.publisher import Publisher
from ganserve.reader import MEASURES, REMOVED
from ganserve.store import Missing, Unreadable


class Repository(Publisher):
    """The models, to be read and written by several processes at once."""

    def record(self, name: str, version: int, measure: dict[str, Any]) -> None:
        """Add a measurement beside a version, which itself never changes. Raises as :meth:`card`."""
        self.card(name, version)
        self.store.ensure(name)
        line = json.dumps(measure, ensure_ascii=False).encode()
        self.store.append(f"{name}/{version}/{MEASURES}", line)

    def promote(self, name: str, version: int, expected: LivePointer | EllipsisType | None = ...) -> LivePointer:
        """Make a sound version live; a race that is lost to another promotion is run again.

        Args:
            expected: the pointer that is to be replaced, and no other; left out: whichever stands.

        Raises:
            VersionNotFound, ModelCorrupt: nothing has changed.
            PointerMoved: another pointer than ``expected`` stands.
        """
        self.verify(name, version)
        self._replaceable(f"{name}/config.pbtxt")
        moved = False
        while not moved:
            before, content = self._pointer(name)
            if expected is not ... and before != expected:
                raise PointerMoved(f"the live version of {name} has changed: read /models/{name} again")
            if before is not None and before.version == version:
                pointer = before
                break
            previous = before.version if before else None
            pointer = LivePointer(version=version, previous=previous, promoted_at=datetime.now(UTC))
            moved = self.store.replace(f"{name}/live.json", to_json(pointer), content)
        if moved and version in self.removed(name):
            # Who removes it looks at the pointer after noting that: of the two, at least one sees the other.
            if before is not None:
                self.store.replace(f"{name}/live.json", to_json(before), to_json(pointer))
            raise VersionRemoved(f"{name} version {version} was removed for good meanwhile")
        self.mend(name)
        return pointer

    def mend(self, name: str) -> None:
        """Bring ``config.pbtxt`` in line with the live pointer, however many others move it meanwhile."""
        live = None
        while (now := self.live(name)) is not None and now != live:
            live = now
            self.put(f"{name}/config.pbtxt", signature.config_pbtxt(self.card(name, live), live).encode())

    def rollback(self, name: str) -> LivePointer:
        """Make the previous version live again. Raises VersionNotFound if there is none."""
        pointer = self.live_pointer(name)
        if pointer is None or pointer.previous is None:
            raise VersionNotFound(f"{name} has no previous version to roll back to; promote one by its number")
        return self.promote(name, pointer.previous)

    def remove(self, name: str, version: int) -> None:
        """Take a version away for good: its files are gone, its number is never given again.

        Raises:
            VersionLive: nothing has changed.
            ModelNotFound, VersionNotFound, VersionRemoved
        """
        self._known(name, version)
        self.store.ensure(name)
        with self.store.exclusive(name):
            self._known(name, version)
            # Before the files go: a crash between leaves a version that can be removed again.
            try:
                self._give_up(name, version)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                # Who removes it may want the room. To note it takes some, and no image is made from this part.
                try:
                    self.store.remove(f"{name}/{version}/samples.png")
                except FileNotFoundError:
                    raise error from None
                self._give_up(name, version)
            self.store.remove(f"{name}/{version}")

    def _give_up(self, name: str, version: int) -> None:
        """Note that a version is removed for good, unless it is live or becomes so meanwhile. Raises VersionLive."""
        self._not_live(name, version)
        self.raise_highest(name, max(self.taken(name)))
        self.note_removed(name, {version})
        try:
            self._not_live(name, version)
        except VersionLive:
            self.note_removed(name, set(), kept={version})
            raise

    def _replaceable(self, key: str) -> None:
        """Raises ModelUnreadable where what stands at a key is no file, so that nothing can take its place."""
        try:
            self.store.read(key)
        except Missing:
            return
        except Unreadable as error:
            raise ModelUnreadable(f"{key} cannot be written anew: {error}") from error

    def _not_live(self, name: str, version: int) -> None:
        """See to it that no roll back leads to a version. Raises VersionLive."""
        done = False
        while not done:
            pointer, content = self._pointer(name)
            if pointer is not None and pointer.version == version:
                raise VersionLive(f"{name} version {version} is live: promote another version first")
            done = pointer is None or pointer.previous != version
            if pointer is not None and not done:
                without = to_json(pointer.model_copy(update={"previous": None}))
                done = self.store.replace(f"{name}/live.json", without, content)

    def note_removed(self, name: str, gone: set[int], kept: Set[int] = frozenset()) -> None:
        """Add to the versions that were removed for good, or take back what was added."""
        done = False
        while not done:
            try:
                before: bytes | None = self.store.read(f"{name}/{REMOVED}")
            except Missing:
                before = None
            numbers = sorted({*self.removed(name), *gone} - kept)
            content = "".join(f"{number}\n" for number in numbers).encode()
            done = content == before or self.store.replace(f"{name}/{REMOVED}", content, before)
