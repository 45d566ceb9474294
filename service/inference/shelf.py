"""The engines in memory: one load a version however many ask, and the least used leave first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ganserve.card import ModelCard, ModelRefused, ModelUnreadable, RepositoryError
from ganserve.repository import Repository
from service.inference.engine import DeviceUnavailable, Engine
from service.inference.patience import Patience
from service.observe import metrics

Key = tuple[str, int]


class Opener(Protocol):
    """How a checked model file becomes an engine."""

    def __call__(self, card: ModelCard, content: bytes) -> Engine:
        """Raises ModelCorrupt."""


class Shelf:
    """Versions to engines; used on the event loop, while reading and opening happen under ``patience``.

    Args:
        most: engines that are kept.
        settled: told of every load that ended: the version, and its card or why there is none.
    """

    def __init__(
        self,
        repository: Repository,
        opener: Opener,
        patience: Patience,
        most: int,
        settled: Callable[[Key, ModelCard | RepositoryError], None],
    ) -> None:
        self._repository, self._open, self._patience = repository, opener, patience
        self._most, self._told = most, settled
        self._engines: OrderedDict[Key, Engine] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._engines

    @property
    def engines(self) -> list[tuple[Key, Engine]]:
        """What is in memory, the least used first."""
        return list(self._engines.items())

    async def engine(self, key: Key) -> Engine:
        """The engine of a version, from memory or loaded now; raises as :meth:`load`."""
        engine = self._engines.get(key)
        if engine is None:
            return await self.load(key)
        self._engines.move_to_end(key)
        return engine

    async def load(self, key: Key) -> Engine:
        """Read, open and warm a version. It goes on when whoever asked hangs up.

        Raises:
            ModelCorrupt, ModelNotFound, VersionNotFound: and it is told as such.
            DeviceUnavailable: see :func:`service.inference.engine.providers`.
        """
        what = f"loading {key[0]} version {key[1]}"
        work = partial(_read_and_open, self._repository, self._open, key)
        try:
            return await self._patience.run(("load", key), what, work, partial(self._loaded, key))
        except ModelUnreadable as error:
            self._told(key, error)
            raise

    def unload(self, name: str, version: int | None = None) -> None:
        """Free the memory of a model's versions, or of one."""
        for key in [key for key in self._engines if key[0] == name and version in (None, key[1])]:
            del self._engines[key]
        metrics.LOADED.set(len(self._engines))

    def _loaded(self, key: Key, done: asyncio.Future[Engine]) -> None:
        error = done.exception()
        if error is not None:
            if isinstance(error, RepositoryError):
                self._told(key, error)
            return
        self._engines[key] = done.result()
        self._told(key, done.result().card)
        while len(self._engines) > self._most:
            self._engines.popitem(last=False)
        metrics.LOADED.set(len(self._engines))


def _read_and_open(repository: Repository, opener: Opener, key: Key) -> Engine:
    # The very bytes that were compared with the card are loaded: a file cannot change in between.
    card, content = repository.read(*key)
    try:
        return opener(card, content)
    except (ModelUnreadable, DeviceUnavailable):
        raise
    except RepositoryError as error:
        raise ModelRefused(str(error)) from error
    except Exception as error:
        # Whatever an odd file brings about is told of that file.
        raise ModelRefused(
            f"{card.name} version {card.version}: it cannot be opened ({type(error).__name__}: {error!s:.200})"
        ) from error
