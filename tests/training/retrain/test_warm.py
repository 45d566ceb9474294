"""A job may begin from the live version: always the same one, and only one that fits."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from training.retrain.site import Config, JobFailed, Site
from training.retrain.warm import init_weights


def _site(tmp_path: Path, recipe: str = "cgan", live: int | None = 1) -> Site:
    card = SimpleNamespace(name="m", version=1, recipe=recipe, sha256="ab" * 32, classes=["b", "a"])
    site = Site(Config(f"sqlite:///{tmp_path}/jobs.sqlite", tmp_path, tmp_path / "models", "w"))
    live_models = SimpleNamespace(live=lambda name: live, card=lambda name, version: card)
    site.repository = live_models  # type: ignore[assignment]
    return site


def test_a_warm_start_begins_from_the_version_that_was_live_when_the_job_first_asked(tmp_path: Path) -> None:
    site, spec = _site(tmp_path), {"model": "m", "recipe": "cgan"}
    kept = tmp_path / "weights" / f"{'ab' * 32}.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(b"first")
    first = asyncio.run(init_weights(site, "job", spec))
    kept.write_bytes(b"another version's")
    assert asyncio.run(init_weights(site, "job", spec)) == first
    weights, classes = first
    assert (weights.read_bytes(), classes) == (b"first", ["b", "a"])


def test_a_warm_start_that_a_version_before_began_has_weights_alone(tmp_path: Path) -> None:
    site = _site(tmp_path)
    (tmp_path / "runs" / "job").mkdir(parents=True)
    (tmp_path / "runs" / "job" / "init.safetensors").write_bytes(b"first")
    weights, classes = asyncio.run(init_weights(site, "job", {"model": "m", "recipe": "cgan"}))
    assert (weights.read_bytes(), classes) == (b"first", [])


@pytest.mark.parametrize(
    ("recipe", "live", "words"),
    [("dcgan", 1, "m 1 is of recipe 'dcgan', not 'cgan'"), ("cgan", None, "'m' has no live version")],
)
def test_a_warm_start_from_nothing_or_another_recipe_fails_with_its_reason(
    tmp_path: Path, recipe: str, live: int | None, words: str
) -> None:
    with pytest.raises(JobFailed, match=f'{words}.*ask for init "scratch"'):
        asyncio.run(init_weights(_site(tmp_path, recipe, live), "job", {"model": "m", "recipe": "cgan"}))
