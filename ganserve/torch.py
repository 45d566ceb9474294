"""Synthetic pictures for PyTorch's data loaders: a range of addresses, made while it is read.

    from ganserve.torch import Synthetic
    pictures = Synthetic("http://127.0.0.1:8000", n=60000)          # or a repository's folder, without a server
    for images, labels in DataLoader(pictures, batch_size=128, num_workers=2):
        ...

The one module of the package that imports torch; nothing imports it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from operator import index
from pathlib import Path
from typing import Any, Protocol, SupportsIndex

from PIL import Image

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ganserve.torch needs PyTorch: pip install torch, or 'ganserve[training]'", name=error.name
    ) from error
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ganserve import errors, machine
from ganserve.asked import Asked, Label, in_turn, scaling
from ganserve.generator import Generator, Network, translated
from ganserve.images import Images
from ganserve.latents import MAX_SEED
from ganserve.place import Place, inside, place

BALANCED = "balanced"
SERVER = re.compile("https?://", re.IGNORECASE)
# Rows that are made at a time: enough runs for every core.
BLOCK = 128

Transform = Callable[[Tensor], Any]


class _Maker(Protocol):
    """A server's client, or a model that is run here."""

    def generate(
        self,
        label: Any = None,
        n: int | None = None,
        seed: int | None = None,
        *,
        model: str | None = None,
        version: int | None = None,
        truncation: float | None = None,
    ) -> Images:
        """Images of one version."""


class _Held:
    """A version that is in memory: other processes need neither its repository nor what talks to an object store, of
    which a process that was forked could make no use."""

    def __init__(self, network: Network, threads: int | None) -> None:
        self._network, self._threads = network, threads or machine.cores()

    def generate(
        self,
        label: Any = None,
        n: int | None = None,
        seed: int | None = None,
        *,
        model: str | None = None,
        version: int | None = None,
        truncation: float | None = None,
    ) -> Images:
        """As :meth:`ganserve.Generator.generate`."""
        return self._network.generate(Asked.of(label, n, seed, None, model, version, truncation), self._threads)


class Synthetic(IterableDataset[tuple[Any, int]]):
    """Pictures with their labels, as rows: row ``i`` is the image of ``seed + i``, and labels are taken in turn.

    Workers of a data loader and ranks of a distributed run get rows of their own, whose union is the same for any
    number of them; ranks get equally many, but for one. The order is the same for the same number of them, and that of
    the rows for any number of workers where ``block`` is the loader's batch size. The rows are those of
    :meth:`ganserve.Client.stream`.

    >>> pictures = Synthetic("models", n=1000)
    >>> image, label = next(iter(pictures))
    >>> image.shape, image.dtype, label, len(pictures)
    (torch.Size([1, 28, 28]), torch.uint8, 0, 1000)
    >>> [label for _, label in Synthetic("models", n=4, labels=["7", 3], truncation=0.7)]
    [7, 3, 7, 3]

    Args:
        source: a server's URL (the token is ``GANSERVE_TOKEN``); or a repository, as a folder or the URL of an object
            store, or the folder of a model in one: then this process runs the model itself.
        model: None: the server's default one; of a repository the flagship, else the first by name.
        version: None: the one that is live now, for as long as the data set lives.
        seed: of row 0.
        n: rows in all.
        labels: names or indices, taken in turn; ``"balanced"``: all classes in turn.
        truncation: above 0, up to 1, in whole hundredths: scales latents, for less variety and more typical images.
        transform: from an image, uint8 [c, h, w], to what is yielded in its place; None: nothing is changed.
        offset: rows before it are left out, as those that a training has seen already.
        block: rows that a worker makes at a time.

    Attributes:
        model, version: those that are used.
        class_names: of the model: label ``k`` is ``class_names[k]``; -1 is the label of a model without classes.

    Raises:
        errors.GanserveError: as :meth:`ganserve.Client.generate` and :meth:`ganserve.Generator.generate`.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        model: str | None = None,
        version: int | None = None,
        seed: int = 0,
        n: int,
        labels: str | Sequence[Label] = BALANCED,
        truncation: float | None = None,
        transform: Transform | None = None,
        offset: int = 0,
        block: int = BLOCK,
    ) -> None:
        for name, given, least in (("n", n, 1), ("offset", offset, 0), ("block", block, 1)):
            if not isinstance(given, SupportsIndex) or index(given) < least:
                raise errors.Invalid(f"{name} is {given!r}: expected a whole number, at least {least}")
        if labels != BALANCED if isinstance(labels, str) else not isinstance(labels, Iterable):
            raise errors.Invalid(f"labels is {labels!r}: expected a list of names or indices, or {BALANCED!r}")
        self._source = str(source)
        self.n, self.offset, self.block = index(n), index(offset), index(block)
        self.seed, self.transform = seed, transform
        self.truncation = None if (hundredths := scaling(truncation)) is None else hundredths / 100
        asked = None if isinstance(labels, str) else list(labels)
        found = None if SERVER.match(self._source) else _network(self._source, model, version)
        self._held = None if found is None else (found.card, found.content)
        with self._maker(None) as maker:
            # Settles what is asked for: the names that there are, and the version, also if another goes live meanwhile.
            first = maker.generate(asked, seed=seed, model=model, version=version, truncation=self.truncation)
        self.model, self.version, self.class_names = first.model, first.version, first.class_names
        chosen = range(len(self.class_names)) if asked is None else first.labels.tolist()
        # By name: that means the same whether or not names are whole numbers.
        self._turn = [self.class_names[label] for label in chosen] if self.class_names else None
        self._done = self._skipped = 0
        self._of: tuple[int, int] | None = None
        self._told: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Rows of this rank in the coming pass, over all workers."""
        rank, ranks = self._rank()
        return sum(map(len, _parts(self.offset, self.n, self.block, rank, ranks))) - self._skipped

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        rank, ranks = self._rank()
        parts = _parts(self.offset, self.n, self.block, rank, ranks)
        self._of, self._done = (ranks, workers), self._seen(ranks, workers)
        for images in self._images(islice(parts, worker, None, workers), None if info is None else 1, self._done):
            pixels = torch.from_numpy(images.images).permute(0, 3, 1, 2)
            for image, label in zip(pixels, images.labels.tolist(), strict=True):
                self._done += 1
                yield (image if self.transform is None else self.transform(image)), label
        self._done = 0

    def rows(self, parts: Sequence[tuple[int, int]] | None = None) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, for ``datasets.IterableDataset.from_generator(pictures.rows)`` and its like.

        >>> sorted(next(Synthetic("models", n=10).rows()))
        ['address', 'image', 'label', 'seed']

        Args:
            parts: first row and the one after the last of each part; None: all rows, whatever worker or rank this is,
                for such a library divides them itself: ``gen_kwargs={"parts": pictures.parts(8)}``.
        """
        wanted = [(self.offset, self.n)] if parts is None else parts
        for start, stop in wanted:
            for images in self._images(_parts(start, stop, self.block, 0, 1), None, 0):
                for row, address in enumerate(images.addresses):
                    pixels = images.images[row]
                    yield {
                        "image": Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels),
                        "label": int(images.labels[row]),
                        "seed": int(images.seeds[row]),
                        "address": address,
                    }

    def parts(self, number: int) -> list[tuple[int, int]]:
        """The rows in so many parts, for :meth:`rows`."""
        left = self.n - self.offset
        ends = [self.offset + left * part // number for part in range(number + 1)]
        return list(pairwise(ends))

    def state_dict(self) -> dict[str, Any]:
        """Where this process stands: to be asked in the process that reads, as torchdata's StatefulDataLoader does.

        A loader with workers that cannot ask them counts what it has got: ``offset`` is that times the ranks, where
        ``block`` is its batch size.
        """
        return {**self._named(), "offset": self.offset, "done": self._done or self._skipped, "of": self._of}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was asked: the coming pass leaves out what was read, later ones are whole.

        Raises:
            errors.Invalid: it is the state of other rows.
        """
        offset, done = int(state.get("offset", 0)), int(state.get("done", 0))
        for name, own in self._named().items():
            # Blocks may be of another size, but where one was left in its middle.
            if state.get(name, own) != own and (done or name != "block"):
                raise errors.Invalid(f"this is where {name} {state[name]} stood: expected {own}")
        if offset < 0 or done < 0:
            raise errors.Invalid(f"offset {offset}, done {done}: expected at least 0")
        self.offset, self._skipped, self._done = offset, done, 0
        self._of = tuple(state["of"]) if state.get("of") else None

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are started anew, which know of no other process."""
        return {**self.__dict__, "_told": self._rank()}

    def _named(self) -> dict[str, Any]:
        """Which rows these are, and how they are cut."""
        asked = {"seed": self.seed, "n": self.n, "labels": self._turn, "truncation": self.truncation}
        return {"model": self.model, "version": self.version, **asked, "block": self.block}

    def _seen(self, ranks: int, workers: int) -> int:
        """Rows of this process's own that the coming pass leaves out."""
        seen, self._skipped = self._skipped, 0
        if seen and self._of not in (None, (ranks, workers)):
            raise errors.Invalid(
                f"this is where one of {self._of} ranks and workers stood, and here are {(ranks, workers)}: go on with "
                "as many, or from an offset"
            )
        return seen

    def _images(self, parts: Iterator[range], threads: int | None, seen: int) -> Iterator[Images]:
        """The images of each part, without the first ``seen`` of all."""
        with self._maker(threads) as maker:
            for part in parts:
                left = part[min(seen, len(part)) :]
                seen -= len(part) - len(left)
                if not left:
                    continue
                label = None if self._turn is None else in_turn(self._turn, left.start, len(left))
                first = (self.seed + left.start) % MAX_SEED
                yield maker.generate(
                    label, len(left), first, model=self.model, version=self.version, truncation=self.truncation
                )

    @contextmanager
    def _maker(self, threads: int | None) -> Iterator[_Maker]:
        """What makes the images, in this process."""
        if self._held is not None:
            yield _Held(Network(*self._held), threads)
            return
        from ganserve.client import Client

        with Client(self._source) as client:
            yield client

    def _rank(self) -> tuple[int, int]:
        """This process's place among those of a distributed run, and how many they are."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return self._told or (int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def _parts(start: int, stop: int, block: int, rank: int, ranks: int) -> Iterator[range]:
    """The rows of a rank, a block at a time; the ranks share each round of blocks, and what is left, evenly."""
    for first in range(start, stop, block * ranks):
        size = min(block * ranks, stop - first)
        part = range(first + size * rank // ranks, first + size * (rank + 1) // ranks)
        if part:
            yield part


def _network(source: str, model: str | None, version: int | None) -> Network:
    """What runs a version of a repository, or of a model in one."""
    try:
        where = place(source)
    except ValueError as error:
        raise errors.Invalid(f"{error}; or the http address of a server") from None
    if model is None and isinstance(where, Path) and (where / "live.json").is_file():
        where, model = where.resolve().parent, where.resolve().name
    return Generator(inside(where, model or _default(where))).network(version=version)


def _default(where: Place) -> str:
    """The model of those who name none."""
    from ganserve.repository import Repository
    from ganserve.settings import PREFERRED

    with translated():
        names = Repository(where).names() if isinstance(where, str) or where.is_dir() else []
    if not names:
        raise errors.NotFound(f"{where} has no models: expected a server's URL or a model repository")
    return PREFERRED if PREFERRED in names else names[0]
