from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from ganserve.events import BAD_INPUT, FINISHED
from tests.training.conftest import silent, small
from training import checkpoint, export, finish, recipes, train, trainer
from training.data import Dataset, split_held_out
from training.loop import Loop
from training.measure import guard, pixels
from training.run import Event, Intervals, Report, Stopped, TrainingError, ask_to_finish

STEPS_TO_20 = Intervals(log_steps=5, snapshots=2, checkpoint_steps=10)


def weights(run: Path) -> dict[str, torch.Tensor]:
    state, _ = checkpoint.latest(run / "checkpoints")
    assert state is not None
    return {f"{part}.{k}": v for part in ("generator", "discriminator") for k, v in state[part].items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def flagship(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the flagship through all its stages, in one go."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("flagship") / "run"
    trainer.train(small("projgan", few), few, run, report=silent, intervals=STEPS_TO_20)
    return run


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_every_recipe_trains_and_leaves_pictures_logs_and_weights(recipe: str, digits: Dataset, tmp_path: Path) -> None:
    config = small(recipe, digits, images=16 * 20 * recipes.get(recipe).d_steps)
    score = pixels.PixelScore(digits.images)
    trainer.train(config, digits, tmp_path / "run", report=silent, intervals=STEPS_TO_20, score=score)
    run = tmp_path / "run"
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert {"loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after"} <= lines[0].keys()
    assert ("wasserstein" in lines[0]) == recipe.startswith("wgan")
    assert (run / "best.safetensors").exists()
    assert (run / "curves.svg").exists()
    assert "finished" in (run / "report.html").read_text(encoding="utf-8")
    kinds = {path.name.rsplit("-", 1)[0] for path in (run / "samples").iterdir()}
    assert kinds == ({"fresh", "same-noise"} if recipes.get(recipe).conditional else {"fresh"})


def test_a_run_for_colour_that_was_stopped_goes_on_exactly_there_and_is_taught_once(
    few: Dataset, tmp_path: Path
) -> None:
    config, score = small("projgan-colour", few, images=16 * 20), pixels.PixelScore(few.images)
    whole, run = tmp_path / "whole", tmp_path / "run"
    trainer.train(config, few, whole, report=silent, intervals=STEPS_TO_20, score=score)
    calls = iter([False] * 12 + [True])
    with pytest.raises(Stopped):
        trainer.train(
            config,
            few,
            run,
            report=silent,
            intervals=STEPS_TO_20,
            score=score,
            should_stop=lambda: next(calls),
        )
    trainer.train(config, few, run, report=silent, intervals=STEPS_TO_20, score=score, resume=True)
    assert_same(weights(whole), weights(run))


def test_a_run_of_equal_configuration_gives_equal_weights(few: Dataset, flagship: Path, tmp_path: Path) -> None:
    trainer.train(small("projgan", few), few, tmp_path / "again", report=silent, intervals=STEPS_TO_20)
    assert_same(weights(flagship), weights(tmp_path / "again"))


@pytest.mark.parametrize(("steps", "stopped"), [(20, 14), (64, 61)], ids=["second stage", "finish"])
def test_a_run_stopped_in_a_later_stage_goes_on_exactly_there(
    steps: int, stopped: int, few: Dataset, flagship: Path, tmp_path: Path
) -> None:
    config, whole, intervals = small("projgan", few, images=16 * steps), flagship, STEPS_TO_20
    if steps != 20:
        whole = tmp_path / "whole"
        trainer.train(config, few, whole, report=silent, intervals=intervals)
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert ["moments" in line for line in lines] == [line["step"] > 0.625 * steps for line in lines]
    calls = iter([False] * stopped + [True])
    with pytest.raises(Stopped):
        trainer.train(
            config,
            few,
            tmp_path / "parts",
            report=silent,
            should_stop=lambda: next(calls),
            intervals=intervals,
        )
    trainer.train(config, few, tmp_path / "parts", report=silent, resume=True, intervals=intervals)
    assert_same(weights(whole), weights(tmp_path / "parts"))


def test_another_seed_gives_other_weights(digits: Dataset, tmp_path: Path) -> None:
    for seed in (1, 2):
        config = small("cgan", digits, seed=seed)
        trainer.train(config, digits, tmp_path / str(seed), report=silent, intervals=STEPS_TO_20)
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert not any(torch.equal(one[name], two[name]) for name in one if one[name].dim() > 1)


# A process that has read what it needs forks one that trains and dies, looks at what that left, and then resumes it as
# `python -m training.train` would.
KILLED = """
import json, os, runpy, signal, sys
from pathlib import Path
from typing import Any
import sklearn.datasets, torch._dynamo
from training.diary import Diary
run = Path(sys.argv[sys.argv.index("--run") + 1])
plain = Diary.checkpoint
def then_die(self):
    plain(self)
    if self.loop.step == 100:
        os.kill(os.getpid(), signal.SIGKILL)
if child := os.fork():
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (run / "killed.json").write_text(json.dumps([ended, json.loads((run / "status.json").read_text())["step"]]))
    sys.argv.append("--resume")
else:
    Diary.checkpoint = then_die
runpy.run_module("training.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.usefixtures("signals")
def test_killed_at_100_steps_and_resumed_to_200_equals_200_in_one_go_bit_for_bit(tmp_path: Path) -> None:
    asked = ["--recipe", "dcgan", "--dataset", "digits", "--images", str(16 * 200), "--threads", "1"]
    asked += ["--set", "batch=16", "--set", "width=0.125", "--checkpoint-steps", "50", "--snapshots", "2"]
    asked += ["--precision", "bf16"]
    assert train.main([*asked, "--run", str(tmp_path / "whole")]) == FINISHED
    command = [sys.executable, "-c", KILLED, *asked, "--run", str(tmp_path / "parts")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == FINISHED
    assert json.loads((tmp_path / "parts" / "killed.json").read_text()) == [-signal.SIGKILL, 100]
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    best = [load_file(tmp_path / name / "best.safetensors") for name in ("whole", "parts")]
    assert_same(*best)
    whole, parts = (
        [{**json.loads(line), "images_per_second": 0} for line in (tmp_path / n / "log.jsonl").read_text().splitlines()]
        for n in ("whole", "parts")
    )
    assert whole == parts
    epochs = [(tmp_path / name / "epochs.jsonl").read_text() for name in ("whole", "parts")]
    assert epochs[0] == epochs[1]
    assert len(epochs[0].splitlines()) == 1, "200 steps are two epochs less a few"


def test_an_epochs_mean_losses_are_those_of_its_steps(digits: Dataset, tmp_path: Path) -> None:
    few = digits.subset(torch.arange(100))
    intervals = Intervals(log_steps=1, snapshots=1)
    trainer.train(small("gan-bn", few, images=16 * 12), few, tmp_path / "run", report=silent, intervals=intervals)
    steps, epochs = (
        [json.loads(line) for line in (tmp_path / "run" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("log", "epochs")
    )
    length = epochs[0]["step"]
    assert [line["epoch"] for line in epochs] == list(range(1, 12 // length + 1))
    for number, epoch in enumerate(epochs):
        own = steps[number * length : (number + 1) * length]
        for name in ("loss_d", "loss_g"):
            assert epoch[name] == pytest.approx(sum(line[name] for line in own) / length, abs=1e-4)


# One process that has read what both need becomes two.
LAUNCHED = """
import os, sys
import sklearn.datasets, torch._dynamo
from training.train import main
child = os.fork()
rank = "0" if child else "1"
os.environ.update(RANK=rank, LOCAL_RANK=rank)
status = main(sys.argv[1:])
sys.exit(status or (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0))
"""


def test_two_processes_train_one_network_together(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", LAUNCHED, "--recipe", "cdcgan", "--dataset", "digits", "--images", "320"]
    command += ["--set", "batch=16", "--set", "width=0.125", "--run", str(tmp_path / "run"), "--threads", "1"]
    # What a launcher (accelerate launch, torchrun) tells each process.
    told = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **told, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=240, check=False
    )
    assert ended.returncode == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["processes"] == 2
    assert config["precision"] in ("no", "bf16"), "one of them decided for both"
    state, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert state is not None
    assert state["step"] == 20
    assert len(state["rng"]) == 2
    assert not torch.equal(state["rng"][0], state["rng"][1])


def test_a_stop_saves_a_checkpoint_and_a_resume_finishes(digits: Dataset, tmp_path: Path) -> None:
    config, run = small("gan", digits), tmp_path / "run"
    answers = iter([False] * 6 + [True])
    with pytest.raises(Stopped):
        trainer.train(config, digits, run, report=silent, should_stop=lambda: next(answers))
    assert json.loads((run / "status.json").read_text())["state"] == "stopped"
    status = trainer.train(config, digits, run, report=silent, resume=True)
    assert (status["state"], status["step"]) == ("finished", 20)
    assert (run / "curves.svg").exists()


def test_resuming_with_another_configuration_names_the_difference(digits: Dataset, tmp_path: Path) -> None:
    config, run = small("gan", digits), tmp_path / "run"
    trainer.train(config, digits, run, report=silent)
    other = dataclasses.replace(config, seed=7)
    with pytest.raises(TrainingError, match="seed: 0 before, 7 now"):
        trainer.train(other, digits, run, report=silent, resume=True)


def test_a_run_is_not_overwritten_without_resume(digits: Dataset, tmp_path: Path) -> None:
    config, run = small("gan", digits), tmp_path / "run"
    trainer.train(config, digits, run, report=silent)
    with pytest.raises(TrainingError, match="--resume"):
        trainer.train(config, digits, run, report=silent)


def test_not_a_number_stops_the_run_and_is_named(digits: Dataset, tmp_path: Path) -> None:
    config = small("wgan-gp", digits, images=16 * 5 * 20, overrides={"lr_d": 0.1, "lr_g": 0.1})
    loop_advance = Loop.advance

    def poisoned(self: Loop, *, measure: bool) -> dict[str, float]:
        if self.step == 3:
            with torch.no_grad():
                next(self.gan.generator.parameters()).fill_(float("nan"))
        return loop_advance(self, measure=measure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "advance", poisoned)
        with pytest.raises(TrainingError, match="not finite"):
            trainer.train(config, digits, tmp_path / "run", report=silent, intervals=STEPS_TO_20)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "not finite" in status["reason"]


def test_a_collapsed_generator_stops_the_run_and_is_named(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.GRACE_STEPS", 5)
    monkeypatch.setattr("training.run.GRACE_SHARE", 0.0)
    with pytest.raises(TrainingError, match=r"collapsed.*look alike"):
        train_flat(digits, tmp_path / "run")


def test_a_run_too_short_for_its_recipe_is_warned_and_ends_with_the_best_that_there_is(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.GRACE_STEPS", 5)
    events: list[Event] = []
    assert train_flat(digits, tmp_path / "run", events.append)["state"] == "finished"
    assert any("look alike" in event["reason"] for event in events if event["event"] == "warning")


def train_flat(digits: Dataset, run: Path, report: Report = silent) -> dict[str, Any]:
    """A short run whose images look alike."""

    def flat(images: torch.Tensor, labels: torch.Tensor | None) -> dict[str, float]:
        return pixels.PixelScore(digits.images)(torch.full_like(images, 128), labels)

    config = small("gan", digits)
    return trainer.train(config, digits, run, report=report, score=flat, intervals=Intervals(snapshots=20))


def test_the_best_snapshot_is_kept_not_the_last(digits: Dataset, tmp_path: Path) -> None:
    scores = iter([3.0, 1.0, 2.0, 5.0])
    seen: list[dict[str, torch.Tensor]] = []

    def told(images: torch.Tensor, labels: torch.Tensor | None) -> dict[str, float]:
        return {"score": next(scores), "variance_ratio": 1.0}

    keep = Loop.to_export

    def remember(self: Loop) -> torch.nn.Module:
        net = keep(self)
        seen.append(net.state_dict())
        return net

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "to_export", remember)
        status = trainer.train(
            small("projgan-r3", digits),
            digits,
            tmp_path / "run",
            report=silent,
            score=told,
            intervals=Intervals(snapshots=4),
        )
    assert status["best"]["step"] == 10
    assert_same(load_file(tmp_path / "run" / "best.safetensors"), seen[1])


def test_a_run_that_is_asked_to_finish_ends_there_with_its_best_snapshot(digits: Dataset, tmp_path: Path) -> None:
    run, scores = tmp_path / "run", iter([1.0, 2.0, 3.0])

    def told(event: Event) -> None:
        if event["event"] == "samples" and event["step"] == 10:
            ask_to_finish(run)

    def score(images: torch.Tensor, labels: torch.Tensor | None) -> dict[str, float]:
        return {"score": next(scores), "variance_ratio": 1.0}

    config, intervals = small("cgan", digits), Intervals(log_steps=5, snapshots=4)
    status = trainer.train(config, digits, run, report=told, score=score, intervals=intervals)
    assert (status["state"], status["ended_early"], status["step"]) == ("finished", True, 10)
    assert status["best"]["step"] == 5
    assert export.FinishedRun.read(run).weights == (run / "best.safetensors").read_bytes()
    card = export.float_model(export.FinishedRun.read(run), "tiny", None)[0]
    assert (card.training["steps"], card.training["ended_early"]) == (10, True)
    again = trainer.train(config, digits, run, report=silent, score=score, intervals=intervals, resume=True)
    assert (again["state"], again["step"]) == ("finished", 10)


def test_a_run_that_ends_between_snapshots_is_looked_at_a_last_time(digits: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def told(event: Event) -> None:
        if event["event"] == "progress":
            finish.main([str(run)])

    intervals = Intervals(log_steps=5, snapshots=1)
    status = trainer.train(small("cgan", digits), digits, run, report=told, intervals=intervals)
    assert (status["step"], status["best"]["step"]) == (5, 5)
    assert finish.main([str(tmp_path)]) == BAD_INPUT


def test_a_snapshot_that_copies_is_not_kept_while_another_does_not(digits: Dataset, tmp_path: Path) -> None:
    found = iter([(1.2, 0.2), (2.0, 0.0), (1.5, 0.01), (1.0, 0.2)])

    def score(images: torch.Tensor, labels: torch.Tensor | None) -> dict[str, float]:
        value, near = next(found)
        return {"score": value, "near_copies": near, "variance_ratio": 1.0}

    asked = small("cgan", digits)
    status = trainer.train(
        asked, digits, tmp_path / "run", report=silent, score=score, intervals=Intervals(snapshots=4)
    )
    assert (status["best"]["step"], status["best"]["near_copies"]) == (15, 0.01)


def test_each_snapshot_tells_the_whole_curve_and_what_the_discriminator_knows(digits: Dataset, tmp_path: Path) -> None:
    told: list[Event] = []
    intervals = Intervals(snapshots=4)
    trainer.train(small("cgan", digits), digits, tmp_path / "run", report=told.append, intervals=intervals)
    snapshots = [event for event in told if event["event"] == "samples"]
    assert [[point["images"] for point in event["curve"]] for event in snapshots] == [
        [80 * n for n in range(1, number + 1)] for number in (1, 2, 3, 4)
    ]
    assert all("held_out_gap" in event for event in snapshots)


def test_a_labelled_set_without_a_judge_gets_one_where_the_run_can_afford_it(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSERVE_DATA", str(tmp_path))
    rest, held_out = split_held_out(digits.subset(torch.arange(400)))
    whole, accelerator = digits.subset(torch.arange(400)), Accelerator(cpu=True)
    short, long = (small("cgan", whole, images=images) for images in (320, 3_000_000))
    score, looks = trainer.watching(short, whole, rest, held_out, accelerator)
    assert isinstance(score, pixels.PixelScore)
    score, looks = trainer.watching(long, whole, rest, held_out, accelerator)
    assert isinstance(score, guard.JudgeScore)
    assert looks.images <= 2000
    assert len(list((tmp_path / "judges").glob("*.safetensors"))) == 1


def test_logging_more_often_does_not_change_the_weights(digits: Dataset, tmp_path: Path) -> None:
    for name, every in (("often", 1), ("rarely", 20)):
        intervals = Intervals(log_steps=every, snapshots=1, checkpoint_steps=20)
        trainer.train(small("cdcgan", digits), digits, tmp_path / name, report=silent, intervals=intervals)
    assert_same(weights(tmp_path / "often"), weights(tmp_path / "rarely"))


def test_a_warm_start_begins_from_the_given_weights(digits: Dataset, tmp_path: Path) -> None:
    trainer.train(small("cgan", digits), digits, tmp_path / "first", report=silent)
    best = tmp_path / "first" / "best.safetensors"
    config = small("cgan", digits, init=str(best))
    loop = Loop(config, digits, Accelerator(cpu=True))
    loop.gan.warm_start(best)
    assert_same(dict(loop.gan.generator.state_dict()), load_file(best))


def test_a_warm_start_from_another_shape_is_refused(digits: Dataset, tmp_path: Path) -> None:
    trainer.train(small("gan", digits), digits, tmp_path / "first", report=silent)
    config = small("cgan", digits, init=str(tmp_path / "first" / "best.safetensors"))
    with pytest.raises(TrainingError, match="cannot start from"):
        trainer.train(config, digits, tmp_path / "second", report=silent)


def test_a_run_saves_checkpoints_by_its_own_schedule(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "MOMENT_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SOON_SECONDS", 600.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1 / 4)
    told: list[Event] = []
    trainer.train(small("gan", digits), digits, tmp_path / "run", report=told.append)
    assert [event["step"] for event in told if event["event"] == "checkpoint"] == [5, 10, 15, 20, 20]
