"""The models that this process serves: loaded when first asked for, swapped when the live pointer moves.

What is served is held in memory: a request touches the disk only for a model that is not loaded yet. When a pointer
moves, the new version is loaded and warm before the first request reaches it, and requests that are under way finish
on the old one. What cannot be served is left out, with the reason, and the rest is served.
"""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ganserve.card import ModelCard, ModelCorrupt, ModelNotFound, ModelUnreadable, RepositoryError, VersionNotFound
from ganserve.repository import Repository
from ganserve.settings import PREFERRED
from service.inference.engine import Engine, Form, OnnxEngine, Placement, providers
from service.inference.follow import Follower, Served
from service.inference.patience import Patience
from service.inference.shelf import Opener, Shelf
from service.inference.unloaded import Unloaded
from service.observe import metrics

if TYPE_CHECKING:
    from service.inference.remote import Upstream

# Requests that wait for a load as the process stops are refused after this time.
DRAIN_SECONDS = 2.0
HERE = Placement(timeout=30.0)

log = logging.getLogger(__name__)


class Catalogue:
    """Names and versions to engines. Used on the event loop only; disk and loading happen on threads.

    Args:
        default: the model of requests that name none; None: the preferred one, else the first by name.
        placement: where networks run, and how long reading, opening and warming a version may take.
        open_engine: how engines are made; tests put their own here.
        upstream: the server that runs the networks in place of this process.
        unloaded: a folder in which the processes of a service keep what is unloaded; None for one that is alone.

    Attributes:
        live, pointers: the live version of each model that has one, and the pointer behind it.

    Raises:
        DeviceUnavailable: ``placement`` asks for cuda, which cannot be had.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        default: str | None = None,
        placement: Placement = HERE,
        max_loaded: int = 16,
        watch_interval: float = 0.5,
        open_engine: Opener | None = None,
        upstream: Upstream | None = None,
        unloaded: Path | None = None,
    ) -> None:
        self.repository, self.upstream = repository, upstream
        self.provider = upstream.address if upstream else providers(placement.device)[1]
        self.withdrawn = Unloaded(unloaded, self.unload)
        self._default = default
        self._inexact = placement.allow_inexact
        opener = open_engine or partial(OnnxEngine.open, placement=placement)
        self._patience = Patience(math.inf if placement.timeout is None else placement.timeout)
        self._served = Served()
        # The very dictionaries: the hottest calls look into them.
        self.live, self.pointers = self._served.live, self._served.pointers
        self._shelf = Shelf(repository, opener, self._patience, max_loaded, self._served.settle)
        self._follower = Follower(repository, self._served, self._shelf, self._patience, watch_interval)
        self._loop: asyncio.AbstractEventLoop | None = None

    def maker(self, card: ModelCard) -> str:
        """What an entity tag must tell of where networks run: nothing, for a version whose bytes are proven here."""
        proven = card.exact and self.upstream is None and not self._inexact
        return "" if proven else self.provider

    @property
    def left_out(self) -> dict[str, str]:
        """What cannot be served as the repository says, by name or name/version, and why."""
        return self._served.left_out.told()

    @property
    def default(self) -> str | None:
        """The model of a request that names none; None while there is no model at all."""
        if self._default is not None or PREFERRED in self.live:
            return self._default or PREFERRED
        return min(self.live, default=None)

    @property
    def loaded(self) -> dict[str, Form | None]:
        """What is in memory, as name:version, and the form in which it has proven an exact card's bytes, if it has."""
        return {f"{name}:{version}": engine.exact for (name, version), engine in self._shelf.engines}

    async def start(self) -> None:
        """Check every live version, warm the default model, and follow the repository from then on."""
        self._loop = asyncio.get_running_loop()
        metrics.PROVIDER.labels(self.provider).set(1)
        self._follower.prepare()
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
        self._follower.start()

    def drain(self) -> None:
        """The process is told to stop: whoever waits for a load waits a moment longer, and no more. From any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, DRAIN_SECONDS, self._patience.end)

    async def stop(self) -> None:
        """End following."""
        self._patience.end()
        await self._follower.stop()

    def look_again(self) -> None:
        """Follow the repository now: what could not be read may have become sound."""
        self._follower.look_again()

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
        return None if chosen is None else self._served.cards.get((wanted, chosen))

    async def engine(self, name: str, version: int | None = None) -> Engine:
        """The engine of a version, loaded now if need be; raises as :meth:`card`."""
        card = self.known(name, version) or await self.card(name, version)
        return await self._shelf.engine((card.name, card.version))

    async def _find(self, name: str | None, version: int | None) -> ModelCard:
        """Look on the disk for what is not in memory: it may have come this moment."""
        if name is not None and version is not None:
            work = partial(self.repository.verify, name, version)
            card = await self._patience.run(("verify", name, version), f"reading {name} version {version}", work)
            self._served.cards[name, version] = card
            return card
        await (self.refresh() if name is None else self.follow(name))
        name = name or self.default
        if name is None:
            if (reason := self._served.left_out.repository) is not None:
                raise ModelUnreadable(reason)
            raise ModelNotFound("there is no model yet: make one with python -m training.export")
        if name in self.live:
            return self._served.cards[name, self.live[name]]
        if name in self._served.left_out.models:
            raise ModelCorrupt(f"model {name} is left out: {self._served.left_out.models[name]}")
        listing = partial(self.repository.versions, name)
        listed = ", ".join(map(str, await self._patience.run(("versions", name), f"reading {name}", listing)))
        raise VersionNotFound(
            f"model {name} has no live version yet: name one of {listed}, or promote one with "
            f"PUT /models/{name}/live"
        )

    def unload(self, name: str, version: int | None = None) -> None:
        """Free the memory of a model's versions, or of one; the next request loads it again."""
        self._shelf.unload(name, version)

    def withdraw(self, name: str) -> None:
        """Serve no version of a model, in any process, until :meth:`load`."""
        self.withdrawn.add(name)

    async def load(self, name: str) -> None:
        """Serve a model again, its live version read anew; raises as :meth:`card`."""
        self.withdrawn.discard(name)
        await self.follow(name)
        await self.engine(name)

    @property
    def servable(self) -> set[str]:
        """Models whose live version can be served."""
        sound = {
            name
            for name, version in self.live.items()
            if name not in self._served.left_out.models or (name, version) in self._shelf
        }
        return sound - set(self.withdrawn)

    async def unreachable(self) -> str | None:
        """Why the server that runs the networks cannot, just now; None if it can, or this process runs them."""
        return await asyncio.to_thread(self.upstream.unreachable) if self.upstream else None

    def unservable(self, name: str, version: int) -> str | None:
        """Why a version cannot be served; None if nothing is known against it."""
        if name in self.withdrawn:
            return "unloaded"
        if (name, version) in self._shelf:
            return None
        left_out = self._served.left_out
        if self.live.get(name, version) == version:
            return left_out.models.get(name)
        return left_out.versions.get((name, version))

    # -- following the repository

    async def refresh(self) -> None:
        """Follow the repository: every model in it."""
        await self._follower.refresh()

    async def follow(self, name: str) -> None:
        """Follow one model, and wait for no other."""
        await self._follower.follow(name)
