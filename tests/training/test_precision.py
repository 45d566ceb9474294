"""What a run's networks compute in: chosen where it begins, kept to its end, and never that of what it leaves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from ganserve.events import BAD_INPUT, FINISHED
from ganserve.repository import Repository
from tests.training.conftest import silent, small
from training import checkpoint, export, gan, networks, precision, recipes, train, trainer
from training.batches import Batches
from training.data import Dataset
from training.gan import Gan
from training.losses import gradient_penalty
from training.measure import pixels
from training.networks import colour
from training.retrain.site import Config, Site
from training.retrain.workflow import train_command
from training.run import Event, Intervals, RunConfig, Stopped

CPU = torch.device("cpu")
AMX, HAS, LACKS = {"amx_bf16": True, "avx512_bf16": True}, {"avx512_bf16": True}, {"avx512_f": True}
SHAPE = networks.Shape(100, 0, 1, 28)
PARTS = ("generator", "discriminator", "ema", "opt_g", "opt_d")
STEPS = Intervals(log_steps=5, snapshots=2, checkpoint_steps=10)


def tensors(state: object) -> list[torch.Tensor]:
    """Every tensor of a checkpoint's part."""
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in tensors(value)]
    return []


def left(run: Path) -> dict[str, Any]:
    state, _ = checkpoint.latest(run / "checkpoints")
    assert state is not None
    return state


def assert_equal_weights(one: Path, other: Path) -> None:
    for part in PARTS:
        pairs = zip(tensors(left(one)[part]), tensors(left(other)[part]), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), part


@pytest.mark.parametrize(
    ("has", "faster", "chosen", "because"),
    [
        (AMX, 0.0, "bf16", "AMX"),
        (LACKS, 9.0, "no", "no instructions"),
        (HAS, 1.5, "bf16", "1.50 times as fast"),
        (HAS, 1.05, "no", "not worth it"),
        ({"architecture": "arm64", "bf16": True}, 1.3, "bf16", "1.30 times as fast"),
    ],
)
def test_the_processor_is_asked_and_in_doubt_a_trial_decides(
    has: dict[str, bool], faster: float, chosen: str, because: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "gain", lambda recipe, shape: faster)
    found, reason = precision.choose(recipes.get("gan"), SHAPE, CPU, has)
    assert found == chosen
    assert because in reason


def test_a_recipe_whose_pictures_would_suffer_and_a_gpu_stay_in_float32() -> None:
    kept = dataclasses.replace(recipes.get("gan"), bfloat16=False)
    assert precision.choose(kept, SHAPE, CPU, AMX)[0] == "no"
    assert precision.choose(recipes.get("gan"), SHAPE, torch.device("cuda"), AMX)[0] == "no"


def test_a_trial_that_cannot_be_made_leaves_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(recipe: object, shape: object) -> float:
        raise RuntimeError("no kernel for BFloat16")

    monkeypatch.setattr(precision, "gain", lacks)
    assert precision.choose(recipes.get("gan"), SHAPE, CPU, HAS) == (
        "no", "bfloat16 does not work here: no kernel for BFloat16",
    )  # fmt: skip


@pytest.mark.parametrize("recipe", ["gan", "projgan", "projgan-heads", "projgan-colour"])
def test_a_trial_runs_the_recipes_own_networks_and_leaves_the_random_state_alone(recipe: str) -> None:
    narrow = recipes.get(recipe, {"width": 0.125, "batch": 16})
    before = torch.get_rng_state()
    faster = precision.gain(narrow, networks.Shape(narrow.z, 3 if narrow.conditional else 0, 3, 16))
    assert faster > 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("recipe", ["cdcgan", "projgan-heads", "projgan-colour"])
def test_a_run_in_bfloat16_is_repeated_and_resumed_to_the_same_bits_and_leaves_float32(
    recipe: str, few: Dataset, tmp_path: Path
) -> None:
    config = small(recipe, few, images=160, precision="bf16")

    def train_in(name: str, config: RunConfig = config, **more: Any) -> Path:
        seen = pixels.PixelScore(few.images)
        trainer.train(config, few, tmp_path / name, report=silent, intervals=STEPS, score=seen, **more)
        return tmp_path / name

    one, again = train_in("one"), train_in("again")
    answers = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        train_in("parts", should_stop=lambda: next(answers))
    parts = train_in("parts", resume=True)
    assert_equal_weights(one, again)
    assert_equal_weights(one, parts)
    state = left(one)
    kept = [tensor for part in PARTS for tensor in tensors(state[part])]
    assert {tensor.dtype for tensor in kept if tensor.is_floating_point()} == {torch.float32}
    exact = left(train_in("float", dataclasses.replace(config, precision="no")))["generator"]
    assert any(not torch.equal(exact[name], state["generator"][name]) for name in exact), "bfloat16 was not used"


def test_features_are_taught_in_bfloat16_nearly_as_in_float32(few: Dataset) -> None:
    assert few.labels is not None
    taught = []
    for kind in ("no", "bf16"):
        torch.manual_seed(0)
        discriminator = colour.Discriminator(networks.Shape(16, 10, 1, 8), 0.25)
        with precision.autocast(CPU, kind, learns=True):
            discriminator.teach(few.images, few.labels, seed=0, shown=5120, mirror=False)
        taught.append(discriminator.features.get_buffer("weight3").flatten())
    exact, halved = taught
    assert not torch.equal(exact, halved)
    assert torch.cosine_similarity(exact, halved, dim=0) > 0.9


def test_statistics_of_norms_are_those_of_float32_on_what_a_layer_tells() -> None:
    norm = nn.BatchNorm2d(4, momentum=1.0)
    told = (torch.randn(64, 4, 12, 12) + 20).bfloat16().contiguous(memory_format=torch.channels_last)
    with precision.autocast(CPU, "bf16"):
        norm(told)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, told.double().mean((0, 2, 3)).float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_var, told.double().var((0, 2, 3)).float(), rtol=1e-3, atol=0)


def test_penalties_on_gradients_are_of_the_critic_in_float32(few: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("wgan-gp", few)
    seen: list[torch.Tensor] = []

    def penalty(critic: Any, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        seen.append((critic(real) - net.discriminator(real)).abs().max())
        return gradient_penalty(critic, real, fake)

    monkeypatch.setattr(gan, "gradient_penalty", penalty)
    accelerator = Accelerator(cpu=True)
    net = Gan(config.settings, config.shape, accelerator, "bf16")
    net.step(0, Batches(few, config, accelerator), lambda fake, label: None)
    assert seen
    assert not any(seen)


def test_a_run_on_a_processor_without_bfloat16_goes_on_in_float32_and_says_so(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = small("cgan", few, precision="bf16"), tmp_path / "run"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: HAS)
    answers = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        trainer.train(config, few, run, report=silent, should_stop=lambda: next(answers))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: LACKS)
    told: list[Event] = []
    trainer.train(config, few, run, report=told.append, resume=True)
    [warned] = [event for event in told if event["event"] == "warning" and "bfloat16" in event["reason"]]
    assert "no instructions" in warned["reason"]
    assert "float32" in warned["reason"]
    assert json.loads((run / "status.json").read_text())["precisions"] == ["bf16", "no"]
    assert json.loads((run / "config.json").read_text())["precision"] == "bf16"


FEW = ("--recipe", "cgan", "--dataset", "digits", "--images", "320", "--set", "batch=16", "--threads", "1")


@pytest.mark.usefixtures("signals")
def test_what_was_chosen_stands_in_the_run_is_kept_by_a_resume_and_is_told_by_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "chosen"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: HAS)
    monkeypatch.setattr(precision, "gain", lambda recipe, shape: 2.0)
    assert train.main([*FEW, "--run", str(run)]) == FINISHED
    assert "--precision bf16: bfloat16 is 2.00 times as fast as float32 here" in capsys.readouterr().err
    assert json.loads((run / "config.json").read_text())["precision"] == "bf16"
    # Another day the trial would say otherwise.
    monkeypatch.setattr(precision, "gain", lambda recipe, shape: 0.5)
    assert train.main([*FEW, "--run", str(run), "--resume"]) == FINISHED
    assert train.main([*FEW, "--run", str(run), "--resume", "--precision", "no"]) == BAD_INPUT
    assert "precision: 'bf16' before, 'no' now" in capsys.readouterr().err
    repository = Repository(tmp_path / "models")
    version = export.export_run(run, repository, exact=True)
    card = repository.verify("chosen", version)
    assert card.exact
    assert card.training["config"]["precision"] == "bf16"
    assert card.training["precisions"] == ["bf16"]


def test_a_workers_setting_is_for_new_runs_and_a_run_that_was_begun_keeps_its_own(tmp_path: Path) -> None:
    spec = {"recipe": "cgan", "dataset": "digits", "images": 320, "seed": 0, "overrides": {}}
    site = Site(Config(f"sqlite:///{tmp_path}/jobs.sqlite", tmp_path, tmp_path / "models", "w", precision="no"))
    run = tmp_path / "run"
    command = train_command(site, spec, run)
    assert command[command.index("--precision") + 1] == "no"
    run.mkdir()
    (run / "config.json").write_text('{"precision": "bf16"}')
    assert "--precision" not in train_command(site, spec, run)
