"""The models that this process serves: loaded when first asked for, swapped when the live pointer moves.

What is served is held in memory: a request touches the disk only for a model that is not loaded yet. When a pointer
moves, the new version is loaded and warm before the first request reaches it, and requests that are under way finish
on the old one. What cannot be served is left out, with the reason, and the rest is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ganserve.card import LivePointer, ModelCard, ModelCorrupt, ModelNotFound, RepositoryError, VersionNotFound
from ganserve.repository import Repository
from service.inference.engine import Device, Engine, OnnxEngine, providers
from service.inference.watch import Watcher
from service.observe import metrics
from service.processes.unloaded import Unloaded

if TYPE_CHECKING:
    from service.inference.remote import Upstream

PREFERRED = "mnist-projgan"
REPOSITORY = "(repository)"

log = logging.getLogger(__name__)

Key = tuple[str, int]


class Opener(Protocol):
    """How a checked model file becomes an engine."""

    def __call__(self, card: ModelCard, content: bytes) -> Engine:
        """Raises ModelCorrupt."""


class Catalogue:
    """Names and versions to engines. Used on the event loop only; disk and loading happen on threads.

    Args:
        default: the model of requests that name none; None: the preferred one, else the first by name.
        open_engine: how engines are made; tests put their own here.
        upstream: the server that runs the networks in place of this process.
        unloaded: a folder in which the processes of a service keep what is unloaded; None for one that is alone.

    Raises:
        DeviceUnavailable: ``device`` is cuda and cannot be had.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        default: str | None = None,
        device: Device = "cpu",
        max_rows: int = 32,
        threads: int = 1,
        max_loaded: int = 16,
        watch_interval: float = 0.5,
        open_engine: Opener | None = None,
        upstream: Upstream | None = None,
        unloaded: Path | None = None,
    ) -> None:
        self.repository = repository
        self.max_loaded, self.watch_interval = max_loaded, watch_interval
        self.upstream = upstream
        self.provider = upstream.address if upstream else providers(device)[1]
        self.live: dict[str, int] = {}
        self.pointers: dict[str, LivePointer] = {}
        self.cards: dict[Key, ModelCard] = {}
        self.left_out: dict[str, str] = {}
        self.withdrawn = Unloaded(unloaded, self._free)
        self._default = default
        self._open = open_engine or (
            lambda card, content: OnnxEngine.open(
                card, content, device=device, max_rows=max_rows, threads=threads
            )
        )
        self._engines: OrderedDict[Key, Engine] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[Engine]] = {}
        self._refreshing = asyncio.Lock()
        self._watcher: Watcher | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def default(self) -> str | None:
        """The model of a request that names none; None while there is no model at all."""
        if self._default is not None or PREFERRED in self.live:
            return self._default or PREFERRED
        return min(self.live, default=None)

    @property
    def loaded(self) -> list[str]:
        """What is in memory, as name:version."""
        return [f"{name}:{version}" for name, version in self._engines]

    async def start(self) -> None:
        """Check every live version, warm the default model, and follow the repository from then on."""
        loop = asyncio.get_running_loop()
        metrics.PROVIDER.labels(self.provider).set(1)
        self._watcher = Watcher(
            self.repository.root,
            partial(loop.call_soon_threadsafe, self.look_again),
            interval=self.watch_interval,
        )
        await self.refresh()
        if self.default in self.live:
            try:
                engine = await self.engine(self.default)
                # A graph's nodes may fall back to another provider than the one that was chosen.
                if engine.provider != self.provider:
                    metrics.PROVIDER.labels(self.provider).set(0)
                    self.provider = engine.provider
                    metrics.PROVIDER.labels(self.provider).set(1)
            except RepositoryError as error:
                log.error("the default model cannot be served: %s", error)
        self._watcher.start()

    async def stop(self) -> None:
        """End following."""
        if self._watcher is not None:
            await asyncio.to_thread(self._watcher.stop)
        for task in list(self._tasks):
            task.cancel()

    def look_again(self) -> None:
        """Follow the repository now: it has changed, or what could not be read may have become sound."""
        task = asyncio.get_running_loop().create_task(self._follow())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        try:
            await self.refresh()
        except Exception:
            log.exception("the repository could not be followed; what was live stays so")

    # -- what requests ask

    async def card(self, name: str | None = None, version: int | None = None) -> ModelCard:
        """The card of the version that a request means.

        Raises:
            ModelNotFound, VersionNotFound: each says what there is.
            ModelCorrupt: it is left out, and why.
        """
        if (card := self.known(name, version)) is not None:
            return card
        wanted = name or self.default
        if wanted in self.withdrawn:
            raise ModelNotFound(
                f"model {wanted} is unloaded: POST /v2/repository/models/{wanted}/load loads it again"
            )
        return await self._find(wanted, version)

    def known(self, name: str | None = None, version: int | None = None) -> ModelCard | None:
        """The same without a look on the disk; None: that is needed, or the model is withdrawn."""
        wanted = name or self.default
        if wanted is None or wanted in self.withdrawn:
            return None
        chosen = version or self.live.get(wanted)
        return None if chosen is None else self.cards.get((wanted, chosen))

    async def engine(self, name: str, version: int | None = None) -> Engine:
        """The engine of a version, loaded now if need be; raises as :meth:`card`."""
        card = await self.card(name, version)
        key = (card.name, card.version)
        engine = self._engines.get(key)
        if engine is not None:
            self._engines.move_to_end(key)
            return engine
        return await self._load(key)

    async def _find(self, name: str | None, version: int | None) -> ModelCard:
        """Look on the disk for what is not in memory: it may have come this moment."""
        if name is None or version is None:
            await self.refresh()
            name = name or self.default
            if name is None:
                raise ModelNotFound("there is no model yet: make one with python -m training.export")
            if name in self.live:
                return self.cards[name, self.live[name]]
            if name in self.left_out:
                raise ModelCorrupt(f"model {name} is left out: {self.left_out[name]}")
            versions = await asyncio.to_thread(self.repository.versions, name)
            listed = ", ".join(map(str, versions))
            raise VersionNotFound(
                f"model {name} has no live version yet: name one of {listed}, or promote one with "
                f"PUT /models/{name}/live"
            )
        self.cards[name, version] = card = await asyncio.to_thread(self.repository.verify, name, version)
        return card

    async def _load(self, key: Key) -> Engine:
        """One load a version, however many ask; it goes on when one of them hangs up."""
        if key not in self._loading:
            task = asyncio.create_task(asyncio.to_thread(self._read_and_open, key))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(self._loading[key])

    def _read_and_open(self, key: Key) -> Engine:
        # The very bytes that were compared with the card are loaded: a file cannot change in between.
        card, content = self.repository.read(*key)
        return self._open(card, content)

    def _loaded(self, key: Key, task: asyncio.Task[Engine]) -> None:
        self._loading.pop(key, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            if isinstance(error, RepositoryError):
                self._leave_out(self._place(key), str(error))
            return
        self._engines[key] = task.result()
        self.cards[key] = task.result().card
        self._put_back(self._place(key))
        while len(self._engines) > self.max_loaded:
            self._engines.popitem(last=False)
        metrics.LOADED.set(len(self._engines))

    def unload(self, name: str, version: int | None = None) -> None:
        """Free the memory of a model's versions, or of one; the next request loads it again."""
        for key in [key for key in self._engines if key[0] == name and version in (None, key[1])]:
            del self._engines[key]
        metrics.LOADED.set(len(self._engines))

    def withdraw(self, name: str) -> None:
        """Serve no version of a model, in any process, until :meth:`load`."""
        self.withdrawn.add(name)

    def _free(self, names: set[str]) -> None:
        for name in names:
            self.unload(name)

    async def load(self, name: str) -> None:
        """Serve a model again, its live version read anew; raises as :meth:`card`."""
        self.withdrawn.discard(name)
        await self.refresh()
        await self.engine(name)

    @property
    def servable(self) -> set[str]:
        """Models whose live version can be served."""
        return self.live.keys() - self.left_out.keys() - set(self.withdrawn)

    async def unreachable(self) -> str | None:
        """Why the server that runs the networks cannot, just now; None if it can, or this process runs them."""
        return await asyncio.to_thread(self.upstream.unreachable) if self.upstream else None

    def unservable(self, name: str, version: int) -> str | None:
        """Why a version cannot be served; None if nothing is known against it."""
        if name in self.withdrawn:
            return "unloaded"
        return self.left_out.get(self._place((name, version)))

    # -- following the repository

    async def refresh(self) -> None:
        """Follow the repository: new models, moved pointers, what became sound or unsound."""
        async with self._refreshing:
            pointers, cards, faults = await asyncio.to_thread(self._look)
            for name, reason in faults.items():
                self._leave_out(name, reason)
            for name, pointer in pointers.items():
                await self._move(name, pointer, cards.get(name))
            # What cannot be read any more, but was served, stays so: its engine or card is in memory.
            for name in self.live.keys() - pointers.keys() - faults.keys():
                del self.live[name], self.pointers[name]
                metrics.LIVE.labels(name).set(0)
                self.unload(name)
            for name in self.left_out.keys() - faults.keys():
                if "/" not in name and name not in pointers:
                    self._put_back(name)

    def _look(self) -> tuple[dict[str, LivePointer], dict[str, ModelCard], dict[str, str]]:
        """Pointers, the cards of checked live versions that were not served so far, and faults, each by name."""
        pointers: dict[str, LivePointer] = {}
        cards: dict[str, ModelCard] = {}
        faults: dict[str, str] = {}
        try:
            if not self.repository.root.is_dir():
                faults[REPOSITORY] = f"there is no folder {self.repository.root.name}: set GANSERVE_MODELS"
            names = self.repository.names()
        except OSError as error:
            return {}, {}, {REPOSITORY: f"the models folder cannot be read: {error.strerror}"}
        for name in names:
            try:
                pointer = self.repository.live_pointer(name)
                if pointer is None:
                    continue
                if self.live.get(name) != pointer.version or name in self.left_out:
                    cards[name] = self.repository.verify(name, pointer.version)
                pointers[name] = pointer
            except RepositoryError as error:
                faults[name] = str(error)
            except OSError as error:
                faults[name] = f"its folder cannot be read: {error.strerror}"
        return pointers, cards, faults

    async def _move(self, name: str, pointer: LivePointer, card: ModelCard | None) -> None:
        """Make a version live here; if the old one is in memory, the new one is loaded and warmed first."""
        before, version = self.live.get(name), pointer.version
        if card is not None:
            if (name, before) in self._engines and before != version:
                try:
                    await self._load((name, version))
                except RepositoryError as error:
                    self._leave_out(name, f"version {version} cannot be served, {before} still is: {error}")
                    return
            self.cards[name, version] = card
            self._put_back(name)
        self.live[name], self.pointers[name] = version, pointer
        metrics.LIVE.labels(name).set(version)
        if before is not None and before != version:
            # Requests under way hold the old engine themselves.
            self.unload(name, before)
            metrics.SWAPS.labels(name).inc()
            log.info("%s: version %d is live in place of %d", name, version, before)

    def _place(self, key: Key) -> str:
        name, version = key
        return name if self.live.get(name, version) == version else f"{name}/{version}"

    def _leave_out(self, place: str, reason: str) -> None:
        if self.left_out.get(place) != reason:
            log.error("%s is left out: %s", place, reason)
        self.left_out[place] = reason
        metrics.LEFT_OUT.set(len(self.left_out))

    def _put_back(self, place: str) -> None:
        if self.left_out.pop(place, None) is not None:
            metrics.LEFT_OUT.set(len(self.left_out))
