"""The models that this process serves: loaded when first asked for, swapped when the live pointer moves."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from service.engine import Engine, choose_provider
from service.metrics import LIVE_VERSION, PROVIDER, SWAPS
from service.repository import ModelCard, ModelCorrupt, ModelNotFound, Repository, RepositoryError
from service.settings import Settings

logger = logging.getLogger("ganserve")

Key = tuple[str, int]


class Catalogue:
    """Names and versions to engines. Used from the event loop only; loading happens on threads."""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        self.settings, self.repository = settings, repository
        self.provider = choose_provider(settings.device)
        PROVIDER.labels(self.provider).set(1)
        self.live: dict[str, int] = {}
        self.cards: dict[Key, ModelCard] = {}
        self.left_out: dict[str, str] = {}
        self._engines: OrderedDict[Key, Engine] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[Engine]] = {}

    async def start(self) -> None:
        """Check every live version and warm the default one."""
        await self.refresh()
        if self.settings.default_model in self.live:
            try:
                await self.engine(self.settings.default_model)
            except ModelCorrupt as error:
                logger.error("%s", error)

    async def refresh(self) -> None:
        """Follow the repository: new models, moved pointers, what became sound or unsound."""
        pointers = await asyncio.to_thread(self._pointers)
        for name, version in pointers.items():
            if self.live.get(name) == version and name not in self.left_out:
                continue
            await self._move(name, version)
        for name in self.live.keys() - pointers.keys():
            del self.live[name]

    def _pointers(self) -> dict[str, int]:
        """The live version of every model that has one; what cannot be read is left out by name."""
        found: dict[str, int] = {}
        try:
            names = self.repository.names()
        except OSError as error:
            self._leave_out("models", f"the repository cannot be read: {error}")
            return found
        for name in names:
            try:
                version = self.repository.live(name)
                if version is None:
                    continue
                if self.live.get(name) != version or name in self.left_out:
                    self.cards[name, version] = self.repository.verify(name, version)
                found[name] = version
            except (RepositoryError, OSError) as error:
                self._leave_out(name, str(error))
                if name in self.live and isinstance(error, ModelCorrupt):
                    found[name] = self.live[name]
        return found

    def _leave_out(self, name: str, reason: str) -> None:
        if self.left_out.get(name) != reason:
            logger.error("left out: %s", reason)
        self.left_out[name] = reason

    async def _move(self, name: str, version: int) -> None:
        """Load and warm the new version first if the old one is in use, then swap."""
        before = self.live.get(name)
        if before is not None and before != version and (name, before) in self._engines:
            try:
                await self._load((name, version))
            except RepositoryError as error:
                self._leave_out(name, str(error))
                return
            SWAPS.labels(name).inc()
            self._engines.pop((name, before), None)
            logger.info("%s: version %d is live in place of %d", name, version, before)
        if before == version or (name, version) in self.cards:
            self.left_out.pop(name, None)
        self.live[name] = version
        LIVE_VERSION.labels(name).set(version)

    def version(self, name: str, version: int | None) -> int:
        """The version that a request means. Raises ModelNotFound, VersionNotFound, ModelCorrupt."""
        if name not in self.live:
            if name in self.left_out:
                raise ModelCorrupt(f"model {name} is left out: {self.left_out[name]}")
            if name in self.repository.names():
                if version is not None:
                    return version
                raise ModelNotFound(f"model {name} has no live version yet: name a version, or promote one")
            known = ", ".join(sorted(self.live)) or "none yet; make one with python -m training.export"
            raise ModelNotFound(f"no model {name!r}: there are {known}")
        return self.live[name] if version is None else version

    async def card(self, name: str, version: int | None = None) -> ModelCard:
        """The card of a version that is checked. Raises as :meth:`version`."""
        key = (name, self.version(name, version))
        if key not in self.cards:
            self.cards[key] = await asyncio.to_thread(self.repository.verify, *key)
        return self.cards[key]

    async def engine(self, name: str, version: int | None = None) -> Engine:
        """The engine of a version, loaded now if need be. Raises as :meth:`version`, and ModelCorrupt."""
        key = (name, self.version(name, version))
        engine = self._engines.get(key)
        if engine is not None:
            self._engines.move_to_end(key)
            return engine
        return await self._load(key)

    async def _load(self, key: Key) -> Engine:
        """One load a version, however many ask."""
        if key not in self._loading:
            task = asyncio.create_task(asyncio.to_thread(self._open, key))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(self._loading[key])

    def _open(self, key: Key) -> Engine:
        card, content = self.repository.read(*key)
        settings = self.settings
        return Engine(card, content, provider=self.provider, lanes=settings.lanes, threads=settings.threads)

    def _loaded(self, key: Key, task: asyncio.Task[Engine]) -> None:
        self._loading.pop(key, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            if isinstance(error, ModelCorrupt) and self.live.get(key[0]) == key[1]:
                self._leave_out(key[0], str(error))
            return
        self._engines[key] = task.result()
        self.cards[key] = task.result().card
        while len(self._engines) > self.settings.max_loaded:
            self._engines.popitem(last=False)

    @property
    def loaded(self) -> list[str]:
        """What is in memory, as name:version."""
        return [f"{name}:{version}" for name, version in self._engines]

    async def watch(self) -> None:
        """Follow the repository until cancelled. A look that fails is logged and the next one is taken."""
        while True:
            await asyncio.sleep(self.settings.watch_interval)
            try:
                await self.refresh()
            except Exception:
                logger.exception("the repository could not be followed")
