"""The same images without a server: a version of a model repository, run here by onnxruntime."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ganserve import carried, errors, labels, machine, pictures, signature
from ganserve.asked import Asked, Label
from ganserve.card import ModelCard, ModelNotFound, RepositoryError, VersionNotFound
from ganserve.claim import Claim, NoAddress
from ganserve.compare import FLOAT_TOLERANCE, compare
from ganserve.images import Images
from ganserve.latents import MAX_SEED, latents
from ganserve.place import inside, place
from ganserve.progress import Bar, wanted
from ganserve.proof import exact_digest
from ganserve.verdict import UNMARKED, Verdict, query_of

if TYPE_CHECKING:
    # It brings onnxruntime, which takes as long to load as all the rest.
    from ganserve.repository import Repository

# As many rows as the service puts into one run at most, and into each where pixels depend on the number.
RUN_ROWS = 32
PADDED_ROWS = 16


class Generator:
    """A model in a repository's folder; ``generate`` is that of :class:`ganserve.Client`, to the same bytes.

    >>> Generator("models/mnist-projgan").generate(label=3, n=16, seed=42).images.shape
    (16, 28, 28, 1)

    Args:
        folder: the model's, ``REPOSITORY/NAME``; the repository may be the URL of an object store.
        version: the one to run; None: the live one, looked up at each call.
        threads: runs side by side; None: one a core.

    Raises:
        errors.NotFound: no such model.
    """

    def __init__(self, folder: str | Path, *, version: int | None = None, threads: int | None = None) -> None:
        from ganserve.repository import Repository

        where = place(folder)
        root, self._name = (
            where.rsplit("/", 1) if isinstance(where, str) else (where.resolve().parent, where.resolve().name)
        )
        self._repository: Repository = Repository(root)
        self._version = version
        self._threads = threads or machine.cores()
        self._networks: dict[tuple[str, int], Network] = {}
        with translated():
            self._repository.versions(self._name)

    def generate(
        self,
        label: Label | Iterable[Label] | None = None,
        n: int | None = None,
        seed: int | None = None,
        *,
        seeds: Iterable[int] | None = None,
        model: str | None = None,
        version: int | None = None,
        truncation: float | None = None,
        progress: bool | None = False,
    ) -> Images:
        """Images of one version, as :meth:`ganserve.Client.generate`; ``model`` may name another of the repository.

        Raises:
            errors.NotFound: no such model or version.
            errors.Invalid: a label that the model does not have, or other values that cannot be used.
            errors.Unavailable: the version's files are not what its card says.
        """
        asked = Asked.of(label, n, seed, seeds, model, version, truncation)
        with Bar("generate", asked.n, "images", shown=wanted(progress)) as bar:
            return self.network(asked.model, asked.version).generate(asked, self._threads, bar.to)

    def verify(self, picture: bytes | str | Path, *, address: str | None = None) -> Verdict:
        """Whether a picture is what stands at its address, as :meth:`ganserve.Client.verify`; true for a match.

        Args:
            picture: a PNG or WebP, or where it lies.
            address: in place of the one that it carries.

        Raises:
            errors.NotFound: no such model or version here, or a graph of another.
            errors.Invalid: no picture, or no address that it can stand at.
        """
        content = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        with translated():
            found = carried.read(content, max_pixels=pictures.MAX_PIXELS)
            claim = Claim.of_texts(found.texts) if address is None else Claim.parse(query_of(address))
            if claim is None:
                return Verdict("unmarked", note=UNMARKED)
            network = self.network(claim.model, claim.version)
            stands = claim.at(network.card, (found.width, found.height))
            images = network.run(stands.seeds, stands.labels, stands.truncation, self._threads, lambda _: None)
            tolerance = 0 if network.exact else FLOAT_TOLERANCE
            return compare(found.bare, images, stands, network.card, tolerance=tolerance)

    def __repr__(self) -> str:
        return f"Generator({str(inside(self._repository.place, self._name))!r})"

    def network(self, model: str | None = None, version: int | None = None) -> Network:
        """What runs the version that is asked for, kept. Raises as :meth:`generate`."""
        name = model or self._name
        with translated():
            version = version or (self._version if name == self._name else None) or self._repository.live(name)
            if version is None:
                raise errors.NotFound(f"{name} has no live version yet: name one, or promote one")
            key = (name, version)
            if key not in self._networks:
                self._networks[key] = Network(*self._repository.read(name, version))
        return self._networks[key]


class Network:
    """One version's graph in a session of one thread: several runs go side by side.

    Attributes:
        card, content: the version's card and its ``model.onnx``, from which another process makes one of its own.

    Raises:
        errors.Unavailable: the graph does not load, or is none of the card's signature.
    """

    def __init__(self, card: ModelCard, content: bytes) -> None:
        import onnxruntime

        self.card, self.content = card, content
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            signature.check(self._session, card)
        except Exception as error:  # onnxruntime raises many private kinds
            raise errors.Unavailable(f"{card.name} version {card.version} cannot be run: {error}") from error
        self._padded = False
        self._padded = not self._alike()

    @cached_property
    def exact(self) -> bool:
        """Whether the version gives the same bytes everywhere, proven here."""
        card = self.card
        if not card.exact:
            return False

        def run(latent: NDArray[np.float32], label: NDArray[np.int64] | None) -> NDArray[np.uint8]:
            made: NDArray[np.uint8] = self._session.run(None, signature.feeds(card, latent, label))[0]
            return made

        return exact_digest(run, card.latent_recipe, card.z, len(card.classes)) == card.exact_digest

    def generate(self, asked: Asked, threads: int, tell: Callable[[int], None] = lambda made: None) -> Images:
        """The images that are asked for. Raises errors.Invalid for a label that the model does not have."""
        card = self.card
        try:
            classes = labels.rows(asked.label, asked.n, card)
        except labels.UnknownLabel as error:
            raise errors.Invalid(str(error)) from None
        first = secrets.randbelow(MAX_SEED) if asked.seed is None else asked.seed
        chosen = asked.seeds_from(0, asked.n, first)
        images = self.run(chosen, classes, asked.truncation, threads, tell)
        told = classes if card.conditional else np.full(asked.n, -1, np.int64)
        made = (images, told, chosen, tuple(card.classes), card.name, card.version, card.latent_recipe)
        return Images(*made, card.sha256, asked.truncation)

    def run(
        self,
        seeds: NDArray[np.uint64],
        labels: NDArray[np.int64],
        truncation: int | None,
        threads: int,
        tell: Callable[[int], None],
    ) -> NDArray[np.uint8]:
        """Images uint8 [n, h, w, c] of seeds uint64 [n] and labels int64 [n]; ``tell`` hears how many are made."""
        n, shape = len(seeds), self.card.image
        images = np.empty((n, shape.height, shape.width, shape.channels), np.uint8)
        rows = PADDED_ROWS if self._padded else RUN_ROWS

        def piece(start: int) -> int:
            part = slice(start, start + rows)
            images[part] = self._rows(seeds[part], labels[part], truncation)
            return min(start + rows, n)

        starts = range(0, n, rows)
        if min(threads, len(starts)) == 1:
            for start in starts:
                tell(piece(start))
            return images
        with ThreadPoolExecutor(min(threads, len(starts))) as lanes:
            for done in lanes.map(piece, starts):
                tell(done)
        return images

    def _rows(self, seeds: NDArray[np.uint64], labels: NDArray[np.int64], truncation: int | None = None) -> Any:
        n = len(seeds)
        if self._padded:
            spare = PADDED_ROWS - n
            seeds, labels = np.pad(seeds, (0, spare), "edge"), np.pad(labels, (0, spare), "edge")
        latent = latents(self.card.latent_recipe, seeds, self.card.z, truncation)
        return self._session.run(None, signature.feeds(self.card, latent, labels))[0][:n]

    def _alike(self) -> bool:
        """Whether no row's pixels depend on the rows beside it; else the service pads its runs, and so do these."""
        seeds = np.arange(RUN_ROWS, dtype=np.uint64)
        labels = np.arange(RUN_ROWS, dtype=np.int64) % max(1, len(self.card.classes))
        whole = self._rows(seeds, labels)
        return all(np.array_equal(self._rows(seeds[:n], labels[:n]), whole[:n]) for n in (1, 2, 3, 8))


@contextmanager
def translated() -> Iterator[None]:
    """The repository's refusals as a caller's errors."""
    try:
        yield
    except (ModelNotFound, VersionNotFound) as error:
        raise errors.NotFound(str(error)) from error
    except (NoAddress, labels.UnknownLabel) as error:
        raise errors.Invalid(str(error)) from error
    except pictures.PictureError as error:
        kind = errors.TooLarge if isinstance(error, pictures.TooManyPixels) else errors.Invalid
        raise kind(f"the picture {error}") from error
    except RepositoryError as error:
        raise errors.Unavailable(str(error)) from error
