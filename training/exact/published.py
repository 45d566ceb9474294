"""An exact version of a published float one."""

from __future__ import annotations

import json

from ganserve.card import ModelCard
from ganserve.repository import Repository
from training import recipes
from training.exact import Exact, exact_card, export
from training.retrain.recover import rebuild


def exact_of_published(repository: Repository, name: str, version: int) -> tuple[Exact, ModelCard]:
    """The exact graph of a published version, and the card to publish it with.

    The weights are read from the float graph. The card is the float version's; its scores are left out, since they are
    measured on the graph itself, and ``training`` names the version that it was made of.

    Raises:
        RepositoryError: no such version, or not what its card says.
        RecoverError: the file was not exported by this package; an exact version holds no float weights.
        ExactError: its generator has no exact form.
    """
    card, content = repository.read(name, version)
    recipe = recipes.get(card.recipe)
    told = {"name": name, "recipe": recipe.name, "classes": json.dumps(card.classes, ensure_ascii=False)}
    generator = rebuild(content, card)
    exact = export(generator, latent_recipe=card.latent_recipe, image_range=recipe.image_range, metadata=told)
    made = exact_card(card, exact)
    made.training["exact_of"] = {"version": version, "sha256": card.sha256}
    return exact, made
