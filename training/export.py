"""Export the best snapshot of finished runs to ONNX, check it against torch, and publish it.

python -m training.export                        # every finished run under runs/ that models/ lacks
python -m training.export runs/mnist-dcgan       # this one
python -m training.export runs/faces --name faces --models models --no-promote
python -m training.export runs/faces --float     # as float32, whose last bits differ between processors
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ganserve import charts
from ganserve.card import ImageShape, ModelCard, RepositoryError
from ganserve.events import BAD_INPUT
from ganserve.latents import consecutive, latents
from ganserve.repository import Repository
from training import networks
from training.command import ends, refuse, where
from training.exact import ExactError, exact_card
from training.exact import export as to_exact
from training.exact.published import publish_exact
from training.folding import folded
from training.graphs import Graph, open_session, run_session, samples
from training.recover import RecoverError
from training.run import RunConfig, RunNameError, check_name

OPSET = 20
PARITY_BATCHES = (1, 2, 7, 64)


class ExportError(RuntimeError):
    """A run that cannot be exported, or a graph that does not agree with torch."""


class Unfinished(ExportError):  # noqa: N818
    """A run that is as it should be, and not at its end, or has nothing to show."""


@dataclass(frozen=True)
class FinishedRun:
    """What an export needs of a run: its configuration, its best weights and their digest."""

    path: Path
    config: RunConfig
    status: dict[str, Any]
    weights: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the best snapshot: two exports of one snapshot are the same model."""
        return hashlib.sha256(self.weights).hexdigest()

    @classmethod
    def read(cls, path: Path) -> FinishedRun:
        """Raises ExportError if the folder is no finished run."""
        if not (path / "config.json").is_file():
            raise ExportError(f"{path} is not a run: it has no config.json; make one with python -m training.train")
        if not (path / "status.json").is_file():
            raise ExportError(f"run {path.name} was never begun: it has no status.json; train it, or delete the folder")
        status = _document(path / "status.json")
        if status.get("state") != "finished":
            raise Unfinished(
                f"run {path.name} is {status.get('state')} at step {status.get('step')} of {status.get('steps')}: "
                "finish it with python -m training.train ... --resume"
            )
        best = path / "best.safetensors"
        if not best.is_file():
            raise Unfinished(f"run {path.name} kept no snapshot: every one had collapsed; train it anew")
        try:
            config = RunConfig.from_dict(_document(path / "config.json"))
            config.settings  # noqa: B018  an unknown recipe or override
            return cls(path, config, status, best.read_bytes())
        except (OSError, TypeError, ValueError, KeyError) as error:
            raise ExportError(f"run {path.name} is broken: {type(error).__name__}: {error}") from None

    @property
    def pictures(self) -> dict[str, Any]:
        """What the set of pictures was, under ``pictures``; nothing where the run did not note it."""
        try:
            return {"pictures": json.loads((self.path / "dataset.json").read_text(encoding="utf-8"))}
        except (OSError, ValueError):
            return {}

    def generator(self) -> nn.Module:
        """The best snapshot, in evaluation mode."""
        recipe = self.config.settings
        generator, _ = networks.build(recipe.family, self.config.shape, recipe.width)
        generator.load_state_dict(from_safetensors(self.weights))
        return generator.eval().requires_grad_(False)


def _document(file: Path) -> dict[str, Any]:
    """A JSON object of a run. Raises ExportError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"run {file.parent.name} is broken: {file.name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ExportError(f"run {file.parent.name} is broken: {file.name} holds no JSON object")
    return found


def export_run(
    run: Path,
    repository: Repository,
    *,
    name: str | None = None,
    promote: bool = True,
    job_id: str | None = None,
    exact: bool = False,
) -> int:
    """Export, check and publish a finished run, as whole numbers if ``exact``; returns the version.

    Raises:
        ExportError: the run is not finished or broken, its name is no model's, or the graph disagrees with torch.
        ExactError: the generator has no exact form.
    """
    finished = FinishedRun.read(run)
    name = _model_name(name or run.name)
    made = exact_model if exact else float_model
    card, content = made(finished, name, job_id)
    beside = {"weights": finished.weights if exact else None, "logged": json.dumps(charts.kept(run)).encode()}
    version = repository.publish(card, content, samples(content, card), job_id=job_id, **beside)
    if promote:
        repository.promote(name, version)
    return version


def _model_name(name: str) -> str:
    """Raises ExportError for a name that no model can have."""
    try:
        check_name(name)
    except RunNameError as error:
        raise ExportError(f"{error}; name the model with --name") from None
    return name


def float_model(finished: FinishedRun, name: str, job_id: str | None) -> tuple[ModelCard, bytes]:
    """The float graph of a finished run, checked against torch, and its card."""
    graph = Graph(folded(finished.generator()), finished.config.settings.image_range)
    content = to_onnx(graph, finished, name)
    check_parity(content, finished)
    return describe(finished, name, content, graph, job_id), content


def exact_model(finished: FinishedRun, name: str, job_id: str | None) -> tuple[ModelCard, bytes]:
    """The exact graph of a finished run, checked against its whole-number reference, and its card."""
    recipe = finished.config.settings
    made = to_exact(
        finished.generator(),
        latent_recipe=recipe.latent,
        image_range=recipe.image_range,
        metadata=metadata(finished, name),
    )
    graph = Graph(folded(finished.generator()), recipe.image_range)
    return exact_card(describe(finished, name, made.content, graph, job_id), made), made.content


def to_onnx(graph: Graph, finished: FinishedRun, name: str) -> bytes:
    """The graph as self-contained ONNX, with metadata and without a path of the machine that made it."""
    shape, recipe = finished.config.shape, finished.config.settings
    inputs: tuple[Tensor, ...] = (torch.zeros(2, shape.z),)
    names = ["latent"]
    dynamic: list[dict[int, Any]] = [{0: torch.export.Dim("batch")}]
    if shape.classes:
        inputs += (torch.zeros(2, 1, dtype=torch.int64),)
        names.append("label")
        dynamic.append({0: torch.export.Dim("batch")})
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=["image"],
            dynamic_shapes=tuple(dynamic),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    for key, value in metadata(finished, name).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    _assert_symbolic_batch(model)
    onnx.checker.check_model(model, full_check=True)
    assert recipe.z == shape.z
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def metadata(finished: FinishedRun, name: str) -> dict[str, str]:
    """The file's identity."""
    recipe = finished.config.settings
    classes = finished.config.classes if recipe.conditional else ()
    return {
        "name": name,
        "recipe": recipe.name,
        "latent_recipe": recipe.latent,
        "classes": json.dumps(list(classes), ensure_ascii=False),
    }


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they hold stack traces with paths."""
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "generator"
    del model.graph.metadata_props[:]
    for holder in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        holder.doc_string = ""
        del holder.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def _assert_symbolic_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if not first.dim_param:
            raise ExportError(f"the exporter fixed the batch of {value.name!r} to {first.dim_value}")
        first.dim_param = "batch"


def check_parity(content: bytes, finished: FinishedRun) -> None:
    """Compare onnxruntime with torch at several batches and in every class, in evaluation mode without folding.

    Raises:
        ExportError: a pixel differs by more than 1 of 255.
    """
    recipe, shape = finished.config.settings, finished.config.shape
    reference = Graph(finished.generator(), recipe.image_range)
    session = open_session(content)
    batches = [*PARITY_BATCHES, *([shape.classes] if shape.classes else [])]
    for index, batch in enumerate(batches):
        noise = latents(recipe.latent, consecutive(1000 * index, batch), recipe.z)
        label = (np.arange(batch, dtype=np.int64) % shape.classes)[:, None] if shape.classes else None
        with torch.no_grad():
            expected = reference(torch.from_numpy(noise), None if label is None else torch.from_numpy(label)).numpy()
        got = run_session(session, noise, label)
        if got.dtype != np.uint8 or got.shape != expected.shape:
            raise ExportError(f"the graph gives {got.dtype} {got.shape}, torch {expected.dtype} {expected.shape}")
        apart = int(np.abs(got.astype(int) - expected.astype(int)).max())
        if apart > 1:
            raise ExportError(f"at batch {batch} the graph and torch are {apart} of 255 apart")


def describe(finished: FinishedRun, name: str, content: bytes, graph: Graph, job_id: str | None) -> ModelCard:
    """The card of a run's model, all but the scores that ``training.evaluate`` adds."""
    config, recipe, status = finished.config, finished.config.settings, finished.status
    noise, label = (
        torch.zeros(1, recipe.z),
        torch.zeros(1, 1, dtype=torch.int64) if recipe.conditional else None,
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph(noise, label)
    asked = config.as_dict()
    asked["dataset"] = Path(config.dataset).name
    asked.pop("init")
    return ModelCard(
        name=name,
        version=1,
        recipe=recipe.name,
        source=recipe.source,
        dataset=asked["dataset"],
        created_at=datetime.now(UTC),
        conditional=recipe.conditional,
        classes=list(config.classes) if recipe.conditional else [],
        z=recipe.z,
        latent_recipe=recipe.latent,
        image=ImageShape(height=config.size, width=config.size, channels=config.channels),
        opset=OPSET,
        sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(content),
        parameters=sum(p.numel() for p in finished.generator().parameters()),
        macs=counter.get_total_flops() // 2,
        training={
            "config": asked,
            "steps": status["step"],
            **({"ended_early": True} if status.get("ended_early") else {}),
            "images": status["images"],
            "batch": recipe.batch,
            "seconds": status.get("seconds"),
            "threads": status.get("threads"),
            "precisions": status.get("precisions", [config.precision]),
            "torch": status.get("torch"),
            "best": status["best"],
            "weights_sha256": finished.digest,
            "weights": "EMA of the generator" if recipe.ema else "generator",
            "warm_start": config.init is not None,
            **finished.pictures,
        },
        job_id=job_id,
    )


def lacking(runs: Path, repository: Repository) -> tuple[list[Path], int]:
    """The finished runs whose best snapshot no version of the model of that name holds, and how many are broken.

    What is left out is said on standard error.
    """
    found, broken = [], 0
    for config in sorted(runs.glob("*/config.json")):
        run = config.parent
        try:
            finished = FinishedRun.read(run)
            if finished.digest not in published(repository, _model_name(run.name)):
                found.append(run)
        except (ExportError, RepositoryError) as error:
            print(f"left out: {_printable(str(error))}", file=sys.stderr)
            broken += not isinstance(error, Unfinished)
    return found, broken


def _printable(text: str) -> str:
    """One line, also of names that are no UTF-8."""
    return " ".join(text.encode(errors="backslashreplace").decode().split())


def published(repository: Repository, name: str) -> set[str]:
    """The digests of the snapshots that the versions of ``name`` were exported from."""
    if name not in repository.names():
        return set()
    cards = [repository.card(name, version) for version in repository.versions(name)]
    return {card.training.get("weights_sha256", "") for card in cards}


def _publish(run: Path, repository: Repository, options: argparse.Namespace) -> int:
    """Export a run's folder, or make a published float version exact."""
    model, colon, version = str(run).partition(":")
    if colon and version.isdecimal() and not run.exists():
        chosen = {"promote": not options.no_promote, "weights": not options.no_weights, "dataset": options.judge}
        return publish_exact(repository, model, int(version), **chosen)
    return export_run(run, repository, name=options.name, promote=not options.no_promote, exact=not options.float)


@ends
def main(argv: Sequence[str] | None = None) -> int:
    """Export and publish; exit status 0, or 2 when a run cannot be exported or there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description="Export finished runs to ONNX and publish them."
    )
    told = "run folders, or NAME:VERSION of a published float version; all finished runs under --runs by default"
    parser.add_argument("run", nargs="*", type=Path, help=told)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--models", type=where, default=Path("models"), help="the model repository")
    parser.add_argument("--name", help="the model's name; the run folder's by default")
    parser.add_argument("--float", action="store_true", help="float32 instead of whole numbers")
    parser.add_argument("--no-promote", action="store_true", help="publish without making it live")
    parser.add_argument("--no-weights", action="store_true", help="of NAME:VERSION: which keeps the float weights")
    parser.add_argument("--judge", metavar="DATASET", help="of NAME:VERSION: refuse what a judge finds worse on this")
    options = parser.parse_args(argv)
    if options.name is not None:
        check_name(options.name)
        if len(options.run) != 1:
            parser.error("--name goes with one run")
    repository = Repository(options.models)
    runs, broken = (options.run, 0) if options.run else lacking(options.runs, repository)
    if not runs and not broken:
        print(
            f"nothing to export: {options.models} already holds every finished run under {options.runs}, or there "
            "is none. Make one: python -m training.train --recipe cdcgan --dataset ylecun/mnist",
            file=sys.stderr,
        )
        return 2
    for run in runs:
        try:
            version = _publish(run, repository, options)
            print(f"{run.name}: published version {version} of {options.name or run.name}")
        except Exception as error:  # what is damaged fails in any way, and never keeps the others from being published
            foreseen = isinstance(error, ExportError | ExactError | RecoverError | RepositoryError | RunNameError)
            refuse(error if foreseen else f"{run} is broken: {type(error).__name__}: {error}")
            broken += 1
    return BAD_INPUT if broken else 0


if __name__ == "__main__":
    sys.exit(main())
