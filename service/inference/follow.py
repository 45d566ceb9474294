"""Following the repository: new models, moved pointers, what became sound or unsound.

What is served stays served, whatever becomes of its folder: it is in memory, and only another version that is loaded
and warm takes its place. Each model is looked at for itself, so none waits for another.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakValueDictionary

from ganserve.card import LivePointer, ModelCard, ModelNotFound, ModelRefused, ModelUnreadable, RepositoryError
from ganserve.repository import Repository
from service.inference.leftout import LeftOut
from service.inference.patience import Patience
from service.inference.shelf import Key, Shelf
from service.inference.watch import Watcher
from service.observe import metrics

# After a disk refused something, the repository is looked at again though nothing tells of a change.
LOOK_AGAIN_SECONDS = 2.0

log = logging.getLogger(__name__)


@dataclass
class Served:
    """What this process serves, by model; ``cards`` are those of checked versions, live or not."""

    live: dict[str, int] = field(default_factory=dict)
    pointers: dict[str, LivePointer] = field(default_factory=dict)
    cards: dict[Key, ModelCard] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)
    # Versions that loading has refused: a look at their files finds nothing against them, and says nothing for them.
    refused: set[Key] = field(default_factory=set)

    def settle(self, key: Key, found: ModelCard | RepositoryError) -> None:
        """A version was loaded, or cannot be, and why."""
        name, version = key
        other = None if self.live.get(name, version) == version else version
        if isinstance(found, RepositoryError):
            self.left_out.add(name, str(found), other)
            if isinstance(found, ModelRefused):
                self.refused.add(key)
        else:
            self.refused.discard(key)
            self.cards[key] = found
            self.left_out.discard(name, other)


class Follower:
    """Keeps ``served`` as the repository says; used on the event loop."""

    def __init__(
        self, repository: Repository, served: Served, shelf: Shelf, patience: Patience, interval: float
    ) -> None:
        self.repository, self.served, self.shelf, self.patience = repository, served, shelf, patience
        self._interval = interval
        self._listed: set[str] = set()
        # One look a model at a time; a lock lives as long as somebody has it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._watcher: Watcher | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None

    def prepare(self) -> None:
        """Changes count from here on."""
        loop = asyncio.get_running_loop()
        self._watcher = Watcher(
            self.repository.store, partial(loop.call_soon_threadsafe, self.look_again), interval=self._interval
        )

    def start(self) -> None:
        """Begin to follow."""
        assert self._watcher is not None
        self._watcher.start()

    async def stop(self) -> None:
        """End following."""
        if self._again is not None:
            self._again.cancel()
        if self._watcher is not None:
            await asyncio.to_thread(self._watcher.stop)
        for task in list(self._tasks):
            task.cancel()

    def look_again(self) -> None:
        """Follow every model now: something has changed, or what could not be read may have become sound."""
        task = asyncio.get_running_loop().create_task(self._follow_all())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow_all(self) -> None:
        try:
            await self.refresh()
        except Exception:
            log.exception("the repository could not be followed; what was live stays so")

    async def refresh(self) -> None:
        """Follow every model, side by side; whatever hangs is waited for no longer than the deadline."""
        left_out, served = self.served.left_out, self.served
        try:
            there, names = await self.patience.run("names", "the models folder", partial(_names, self.repository))
        except ModelUnreadable as error:
            left_out.set_repository(str(error))
            self._look_later()
            return
        self._listed = set(names)
        place = self.repository.place
        told = place if isinstance(place, str) else f"folder {place.name}"
        left_out.set_repository(None if there else f"there is no {told}: set GANSERVE_MODELS")
        await asyncio.gather(*(self.follow(name) for name in {*names, *served.live, *left_out.models}))

    async def follow(self, name: str) -> None:
        """Follow one model: its pointer, if that is sound, else the reason.

        Raises:
            ModelUnreadable: the reason, of a model that nobody knows yet; else who asks for names that there never were
                would be kept in memory, and told of by probes, while the disk refuses.
        """
        left_out, served = self.served.left_out, self.served
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            checked = None if name in left_out.models else served.live.get(name)
            work = partial(_look, self.repository, name, checked)
            try:
                pointer, card, removed = await self.patience.run(("look", name), f"reading {name}", work)
                if pointer is None:
                    self._gone(name, "live.json is gone")
                else:
                    await self._move(name, pointer, card)
                for version in removed - {served.live.get(name)}:
                    self.forget(name, version)
            except ModelNotFound:
                self._gone(name, "its folder is gone")
            except RepositoryError as error:
                known = {*self._listed, *served.live, *left_out.models}
                if isinstance(error, ModelUnreadable) and name not in known:
                    raise
                left_out.add(name, str(error))
                if isinstance(error, ModelUnreadable):
                    self._look_later()
            except Exception as error:
                # One model's odd folder shall not keep the others from being followed.
                log.exception("%s cannot be followed", name)
                # What the system says of itself; its words for people would name a folder of this machine.
                told = error.strerror if isinstance(error, OSError) else error
                left_out.add(name, f"it cannot be followed ({type(error).__name__}: {told!s:.200})")

    def forget(self, name: str, version: int) -> None:
        """A version was removed for good: nothing of it is answered from memory."""
        if self.served.cards.pop((name, version), None) is not None:
            self.shelf.unload(name, version)
            self.served.left_out.discard(name, version)
            self.served.refused.discard((name, version))

    def _gone(self, name: str, what: str) -> None:
        """What the repository says nothing of any more is served on, if it was."""
        version = self.served.live.get(name)
        if version is None:
            self.served.left_out.forget(name)
        else:
            self.served.left_out.add(name, f"{what}; version {version} is served from memory until it is unloaded")

    async def _move(self, name: str, pointer: LivePointer, card: ModelCard | None) -> None:
        """Make a version live here; if the old one is in memory, the new one is loaded and warmed first."""
        served = self.served
        before, version = served.live.get(name), pointer.version
        if card is not None:
            if before is not None and (name, before) in self.shelf and before != version:
                try:
                    await self.shelf.load((name, version))
                except RepositoryError as error:
                    served.left_out.add(name, f"version {version} cannot be served, {before} still is: {error}")
                    return
            served.cards[name, version] = card
            if (name, version) not in served.refused:
                served.left_out.discard(name)
        served.live[name], served.pointers[name] = version, pointer
        metrics.LIVE.labels(name).set(version)
        if before is not None and before != version:
            # Requests under way hold the old engine themselves.
            self.shelf.unload(name, before)
            metrics.SWAPS.labels(name).inc()
            log.info("%s: version %d is live in place of %d", name, version, before)

    def _look_later(self) -> None:
        if self._again is None:
            self._again = asyncio.get_running_loop().call_later(LOOK_AGAIN_SECONDS, self._once_more)

    def _once_more(self) -> None:
        self._again = None
        self.look_again()


def _names(repository: Repository) -> tuple[bool, list[str]]:
    """Whether there is a models folder, and the models in it. Raises ModelUnreadable."""
    names = repository.names()
    try:
        return bool(names) or repository.store.there(), names
    except OSError as error:
        raise ModelUnreadable(f"the models folder cannot be read ({error.strerror})") from error


def _look(
    repository: Repository, name: str, checked: int | None
) -> tuple[LivePointer | None, ModelCard | None, set[int]]:
    """A model's pointer, the card of the version it names after checking it, unless that is ``checked`` already, and
    the versions that were removed.

    Raises:
        RepositoryError: what is wrong with it.
    """
    pointer, removed = repository.live_pointer(name), repository.removed(name)
    for version in removed:
        repository.store.forget(f"{name}/{version}")
    if pointer is None:
        return pointer, None, removed
    card = None if pointer.version == checked else repository.verify(name, pointer.version)
    try:
        repository.mend(name)
    except (OSError, RepositoryError) as error:
        log.debug("config.pbtxt of %s is left to those who may write: %s", name, error)
    return pointer, card, removed
