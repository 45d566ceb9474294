"""The code gives the known answers that the project publishes for others."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganserve import Generator, latents
from ganserve.grid import STEPS, THRESHOLDS, grid_latents
from ganserve.repository import Repository
from tests import vectors
from tests.vectors import plain

MODELS = Path(__file__).parents[2] / "models"
PAGE = Path(__file__).parents[2] / "ganserve" / "web" / "page"


def words(text: list[str]) -> np.ndarray:
    return np.array([int(word, 16) for word in text], np.uint32)


def test_philox() -> None:
    rows = vectors.read("philox")
    assert len(rows) == 3
    for row in rows:
        assert latents.philox4x32_10(words(row["counter"]), words(row["key"])).tolist() == words(row["output"]).tolist()


def test_thresholds() -> None:
    told = vectors.read("thresholds")
    assert THRESHOLDS.tolist() == told["thresholds"]
    assert (len(THRESHOLDS), told["first_k"]) == (254, -127)


def test_latents_of_every_recipe() -> None:
    rows = vectors.read("latents")
    assert {row["recipe"] for row in rows} == set(latents.RECIPES)
    assert {row["recipe"] for row in rows if "truncation" in row} == set(STEPS)
    for row in rows:
        z, seed = len(row["values"]), [row["seed"]]
        if "truncation" in row:
            assert grid_latents(row["recipe"], seed, z, row["truncation"])[0].tolist() == row["values"]
        else:
            assert latents.latents(row["recipe"], seed, z)[0].tolist() == row["values"]


@pytest.mark.parametrize("told", vectors.read("exact"), ids=lambda told: f"{told['name']}:{told['version']}")
def test_images_of_an_exact_version(told: dict[str, Any]) -> None:
    card = Repository(MODELS).verify(told["name"], told["version"])
    for key in ("sha256", "exact_digest", "latent_recipe", "z", "classes"):
        assert getattr(card, key) == told[key]
    generator = Generator(MODELS / told["name"], version=told["version"])
    for row in told["images"]:
        (image,) = generator.generate(row["label"] if card.classes else None, seed=row["seed"]).images
        assert list(image.shape) == told["image"]
        assert hashlib.sha256(image.tobytes()).hexdigest() == row["sha256"]


@pytest.mark.parametrize("told", vectors.read("exact"), ids=lambda told: f"{told['name']}:{told['version']}")
def test_images_of_an_exact_version_by_a_third_implementation(told: dict[str, Any]) -> None:
    graph = MODELS / told["name"] / str(told["version"]) / "model.onnx"
    made = plain.images(graph, [(row["label"], row["seed"]) for row in told["images"]])
    assert [hashlib.sha256(image.tobytes()).hexdigest() for image in made] == [row["sha256"] for row in told["images"]]


def test_the_digest_of_a_card_by_a_third_implementation() -> None:
    told = vectors.read("exact")[0]
    graph = MODELS / told["name"] / str(told["version"]) / "model.onnx"
    assert plain.digest(graph, len(told["classes"])) == told["exact_digest"]


def test_the_page_names_every_operator_that_exact_graphs_have() -> None:
    page = (MODELS.parent / "docs" / "addresses.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([A-Z]\w+)`", page, re.M))
    assert listed == set(plain.OPERATORS)


def test_every_shipped_exact_version_has_known_answers() -> None:
    repository = Repository(MODELS)
    shipped = {(name, v) for name in repository.names() for v in repository.versions(name)}
    exact = {key for key in shipped if repository.card(*key).exact}
    assert exact <= {(told["name"], told["version"]) for told in vectors.read("exact")}


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_the_browsers_latents_in_javascript() -> None:
    """``ganserve/web/page/latents.js``, which knows no number that two machines might round apart."""
    rows = [row for row in vectors.read("latents") if row["recipe"] in STEPS and "truncation" not in row]
    philox = vectors.read("philox")
    grids = {recipe: {"steps": steps, "thresholds": None} for recipe, steps in STEPS.items()}
    grids["philox-grid/v1"]["thresholds"] = vectors.read("thresholds")["thresholds"]
    script = f"""
import {{ latents, philox }} from {json.dumps(str(PAGE / "latents.js"))};
const words = (told) => told.map((word) => parseInt(word, 16));
const [rows, known, grids] = {json.dumps([rows, philox, grids])};
console.log(JSON.stringify([
  known.map((row) => philox(words(row.counter), words(row.key))),
  rows.map((row) => [...latents(grids[row.recipe], [row.seed], row.values.length)]),
]));
"""
    command = ["node", "--experimental-default-type=module", "--input-type=module", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True, timeout=60)
    made, drawn = json.loads(done.stdout)
    assert made == [words(row["output"]).tolist() for row in philox]
    assert drawn == [row["values"] for row in rows]
