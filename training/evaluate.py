"""How good an exported generator is, measured on the ONNX file itself through onnxruntime.

    python -m training.evaluate mnist-projgan --dataset ylecun/mnist           # a model of the repository
    python -m training.evaluate mnist-projgan:2 --dataset ylecun/mnist --cas --unsupervised --record
    python -m training.evaluate path/to/model.onnx --dataset ylecun/mnist

Every metric is printed beside its value for real images: a sample of the training split in the place of the
generated images. Each generated image has the label of one of that sample, so that both have the classes equally often
(Brock et al. 2018, arXiv:1809.11096, draw labels from the data likewise): a distance to a test split in which some
classes are rarer would else count the classes, not the pictures. The result is printed; with ``--record`` it is added
beside a version of the repository, whose card stays as it was published.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from ganserve import files
from ganserve.card import RepositoryError
from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from training.command import ends, positive, refuse, version_of, where
from training.data import DataError, Dataset, fingerprint, splits
from training.graphs import open_session, run_session
from training.measure import cas, guard, judge, metrics, unsupervised
from training.relabel import order

# Seeds of evaluation images begin here, away from those of samples and examples.
FIRST_SEED = 1 << 40
CAS_SEEDS = (0, 1, 2)
# To be raised with every change of a metric, of the judges' training or of the CAS: figures of another number are
# measured anew.
MEASURE = 1


class Generated:
    """Images of an ONNX file, with what its metadata says of it."""

    def __init__(self, onnx: Path | bytes) -> None:
        content = onnx if isinstance(onnx, bytes) else onnx.read_bytes()
        try:
            self.session: onnxruntime.InferenceSession = open_session(content)
        except Exception as error:  # onnxruntime raises many private kinds
            raise DataError(f"this is no model that onnxruntime can load: {error}") from error
        told = self.session.get_modelmeta().custom_metadata_map
        if "latent_recipe" not in told:
            raise DataError("this ONNX file was not made by python -m training.export: it names no latent recipe")
        self.recipe: str = told["latent_recipe"]
        self.classes: tuple[str, ...] = tuple(json.loads(told.get("classes", "[]")))
        inputs = {i.name: i.shape for i in self.session.get_inputs()}
        self.z = int(inputs["latent"][1])
        self.conditional = "label" in inputs
        # The label that the graph is asked for in the place of each label of the data set.
        self.asked = torch.arange(len(self.classes))
        _, height, width, channels = self.session.get_outputs()[0].shape
        self.size, self.channels = int(height), int(channels)
        if height != width:
            raise DataError(f"images of {height} x {width} cannot be compared: expected square ones")

    def speak(self, classes: Sequence[str]) -> None:
        """Take labels as indices into ``classes`` from here on. Raises DataError where the names are others."""
        if self.conditional:
            self.asked = order(self.classes, classes, ("the model", "the data set"))

    def images(self, n: int, first: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """``n`` images uint8 [n, c, h, w] of consecutive seeds, and the labels asked for, int64 [n]: those given, or
        the classes in turn; None for an unconditional model."""
        noise = latents(self.recipe, consecutive(first, n), self.z)
        label = None
        if self.conditional:
            label = (np.arange(n) % len(self.classes) if labels is None else labels.numpy()).astype(np.int64)[:, None]
        asked = None if label is None else self.asked.numpy()[label]
        parts = [
            run_session(self.session, noise[i : i + 64], None if asked is None else asked[i : i + 64])
            for i in range(0, n, 64)
        ]
        images = torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2).contiguous()
        return images, None if label is None else torch.from_numpy(label[:, 0])


class Yardstick:
    """Real images of a data set, as its judge sees them: what generated ones of a size and channels are held against.

    Raises:
        DataError: the data set cannot be used.
    """

    def __init__(self, name: str, size: int, channels: int, images: int, referee: Path | None = None) -> None:
        self.name = Path(name).name
        self.train, self.test, self.split = splits(name, size, channels)
        found = judge.for_dataset(self.train) if referee is None else judge.read(referee)
        if found.classes != self.train.classes or found.channels != channels:
            raise DataError(f"the judge knows other classes or channels than data set {self.name!r}")
        self.referee = found.on(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.count = min(images, len(self.test), len(self.train))
        chosen = torch.from_numpy(np.random.default_rng(7).permutation(len(self.test))[: self.count])
        drawn = torch.from_numpy(np.random.default_rng(8).permutation(len(self.train))[: self.count])
        self.chosen = self.test.subset(chosen)
        self.real = self._seen(self.chosen)
        # Training images in the place of generated ones, and others to look for copies among.
        self.drawn = self.train.subset(drawn)
        others = torch.ones(len(self.train), dtype=torch.bool)
        others[drawn] = False
        neighbours = self.train.subset(others.nonzero().squeeze(1)[:20_000])
        self.known = self.referee((neighbours if len(neighbours) else self.drawn).images)[1]

    def _seen(self, part: Dataset) -> metrics.Sample:
        return guard.see(self.referee, part.images, part.labels)

    def measure(self, images: Tensor, labels: Tensor | None) -> tuple[dict[str, metrics.Value], dict[str, str]]:
        """Every metric of uint8 [n, c, h, w] with the labels int64 [n] that were asked for, and why some have none."""
        fake = guard.see(self.referee, images, labels)
        return metrics.measure(metrics.Comparison(self.real, fake, self.known))

    def floor(self) -> dict[str, metrics.Value]:
        """The same of the training images in the place of generated ones."""
        parts = (*self._parts, str(self.count))
        return _once(self._kind("real"), parts, lambda: self.measure(self.drawn.images, self.drawn.labels)[0])

    def unsupervised(self, images: Tensor) -> dict[str, metrics.Value]:
        """Metrics of uint8 [n, c, h, w] in features that know no classes, with those of training images in their place
        under ``<name>_real``."""
        words = unsupervised.for_dataset(self.train)
        mine = unsupervised.measure(words, self.chosen.images, images)

        def of_real() -> dict[str, metrics.Value]:
            return unsupervised.measure(words, self.chosen.images, self.drawn.images)

        floor = _once(self._kind("words"), (*self._parts[1:], str(self.count)), of_real)
        ratio, _ = _ratio(mine["unsupervised_frechet"], floor["unsupervised_frechet"])
        told = {**mine, "unsupervised_frechet_ratio": ratio}
        return {**told, **{f"{name}_real": value for name, value in floor.items()}}

    @property
    def unmeasured(self) -> list[str]:
        """Classes of which too few images are at hand to say anything."""
        assert self.real.labels is not None
        counts = torch.bincount(self.real.labels, minlength=len(self.train.classes)).tolist()
        return [name for name, count in zip(self.train.classes, counts, strict=True) if not count]

    def cas_floor(self, n: int) -> dict[str, metrics.Value]:
        """The CAS of ``n`` training images."""
        return _once(self._kind("cas"), (*self._parts, str(n)), lambda: {"cas": _cas_of_real(self.train, self.test, n)})

    def _kind(self, kind: str) -> str:
        return f"{judge.private(self.train.name)}{kind}"

    @property
    def _parts(self) -> tuple[str, str, str]:
        return (self.referee.digest, fingerprint(self.train), fingerprint(self.test))


def yardstick_for(generated: Generated, dataset: str, images: int, referee: Path | None = None) -> Yardstick:
    """The yardstick of a data set for images of a graph's size. Raises DataError."""
    return Yardstick(dataset, generated.size, generated.channels, images, referee)


def evaluate_onnx(
    onnx: Path | bytes,
    dataset_name: str,
    *,
    images: int = 10_000,
    seed: int = 0,
    with_cas: bool = False,
    with_unsupervised: bool = False,
    cas_images: int | None = None,
    referee: Path | None = None,
    yardstick: Yardstick | None = None,
) -> dict[str, Any]:
    """Every metric, each with its value for real images under ``<name>_real``.

    ``cas_images``: how many generated images the CAS classifiers learn from; as many as the training split has by
    default. ``referee``: the weights of another judge than the data set's own. ``yardstick``: that of the data set, if
    it is there already: to make one takes longer than to measure.

    Raises:
        DataError: the data set or the model cannot be used, or their classes differ.
    """
    generated = Generated(onnx)
    yardstick = yardstick or yardstick_for(generated, dataset_name, images, referee)
    train = yardstick.train
    generated.speak(train.classes)
    first = FIRST_SEED + seed * 10_000_000
    images_made, asked = generated.images(yardstick.count, first, yardstick.drawn.labels)
    result, left_out = yardstick.measure(images_made, asked)
    floor = yardstick.floor()
    if with_unsupervised:
        result |= yardstick.unsupervised(images_made)
    if generated.conditional and with_cas:
        n = cas_images or len(train)
        result["cas"], result["cas_images"] = _cas(generated, yardstick.test, n), n
        floor |= yardstick.cas_floor(n)
    ratio, reason = _ratio(result["frechet"], floor["frechet"])
    if reason:
        left_out["frechet_ratio"] = reason
    return {
        "judge": yardstick.referee.digest,
        "dataset": yardstick.name,
        "split": yardstick.split,
        "images": yardstick.count,
        "labels": "training split" if generated.conditional else "none",
        "frechet_ratio": ratio,
        **result,
        **{f"{name}_real": value for name, value in floor.items()},
        **({"left_out": left_out} if left_out else {}),
        **({"unmeasured_classes": yardstick.unmeasured} if yardstick.unmeasured else {}),
    }


def _ratio(frechet: metrics.Value, floor: metrics.Value) -> tuple[float | None, str]:
    """A distance over that of real images, and an empty text; or None, and why there is none."""
    if not isinstance(frechet, float) or not isinstance(floor, float):
        return None, "the distance has no value for these images"
    if floor <= 0:
        return None, "training and test images are the same to the judge"
    return round(frechet / floor, 3), ""


def _once(kind: str, parts: Sequence[str], compute: Callable[[], dict[str, metrics.Value]]) -> dict[str, metrics.Value]:
    """A measurement of real images only, kept beside the judges: the same for every model, it is made once.

    It is kept by what it was made of, and by :data:`MEASURE`.
    """
    digest = hashlib.sha256("\n".join((*parts, str(MEASURE))).encode())
    path = Path(os.environ.get("GANSERVE_DATA", "var")) / "judges" / f"{kind}-{digest.hexdigest()[:24]}.json"
    try:
        kept: dict[str, metrics.Value] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = compute()
        files.replace(path, json.dumps(kept, indent=1).encode())
    return kept


def _cas(generated: Generated, test: Dataset, n: int) -> float:
    """Mean accuracy on real images over three seeds of classifiers that saw generated images only."""
    assert test.labels is not None
    fake, labels = generated.images(n, FIRST_SEED * 2)
    assert labels is not None
    scores = [cas.score(fake, labels, test.images, test.labels, seed=seed) for seed in CAS_SEEDS]
    return round(statistics.mean(scores), 5)


def _cas_of_real(train: Dataset, test: Dataset, n: int) -> float:
    """The same of one classifier that saw as many training images instead, all of them at most."""
    assert train.labels is not None
    assert test.labels is not None
    order = torch.from_numpy(np.random.default_rng(9).permutation(len(train))[:n])
    drawn = train.subset(order)
    assert drawn.labels is not None
    return round(cas.score(drawn.images, drawn.labels, test.images, test.labels, seed=CAS_SEEDS[0]), 5)


def table(result: dict[str, Any]) -> str:
    """The metrics as lines: name, value, value for real images."""
    lines = [f"{'metric':30} {'generated':>12} {'real':>12}"]
    for name in [*metrics.METRICS, "cas", "unsupervised_frechet", "unsupervised_recall"]:
        if name in result and name != "class_histogram":
            values = [result[name], result[f"{name}_real"]]
            told = ["-" if value is None else f"{value:.4f}" for value in values]
            lines.append(f"{name:30} {told[0]:>12} {told[1]:>12}")
    ratio = "-" if result["frechet_ratio"] is None else f"{result['frechet_ratio']:.2f}"
    lines.append(f"{'frechet over real':30} {ratio:>12} {1:>12.2f}")
    lines += [f"{name} is left out: {why}" for name, why in result.get("left_out", {}).items()]
    if missing := result.get("unmeasured_classes"):
        lines.append(f"not measured, for want of images: {', '.join(missing)}")
    lines.append(f"class histogram: {result['class_histogram']}")
    return "\n".join(lines)


@ends
def main(argv: Sequence[str] | None = None) -> int:
    """Measure one model; exit status 2 for what cannot be measured."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Score an exported generator.")
    parser.add_argument("model", help="NAME or NAME:VERSION of the repository, or the path of a .onnx file")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--models", type=where, default=Path("models"))
    parser.add_argument("--images", type=positive, default=10_000)
    parser.add_argument("--cas", action="store_true", help="the classification accuracy score too (minutes)")
    parser.add_argument("--unsupervised", action="store_true", help="in features that know no classes too (a minute)")
    parser.add_argument("--cas-images", type=positive, help="how many it learns from; the training split's by default")
    parser.add_argument("--judge", type=Path, help="weights (.safetensors) of a judge; the data set's own by default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="add the scores beside the version, in measures.jsonl")
    parser.add_argument("--threads", type=positive)
    options = parser.parse_args(argv)
    if options.record and options.model.endswith(".onnx"):
        parser.error("--record goes with a model of the repository")
    if options.threads:
        torch.set_num_threads(options.threads)
    repository = Repository(options.models)
    try:
        if options.model.endswith(".onnx"):
            path, key = Path(options.model), None
        else:
            name, version = version_of(options.model)
            number = repository.live(name) if version is None else version
            if number is None:
                raise DataError(f"{name} has no live version: name one, as {name}:1")
            repository.verify(name, number)
            path, key = repository.model_path(name, number), (name, number)
        result = evaluate_onnx(
            path,
            options.dataset,
            images=options.images,
            with_cas=options.cas,
            with_unsupervised=options.unsupervised,
            cas_images=options.cas_images,
            referee=options.judge,
        )
    except (DataError, RepositoryError, OSError, ValueError) as error:
        return refuse(error)
    # Printed first: where nothing can be recorded, minutes of measuring are not lost.
    print(json.dumps(result) if options.json else table(result), flush=True)
    if options.record and key is not None:
        repository.record(*key, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
