"""An exact version of a published float one."""

from __future__ import annotations

import json

from safetensors.torch import save as to_safetensors

from ganserve.card import ModelCard
from ganserve.repository import Repository
from training import recipes
from training.exact import Exact, ExactError, exact_card, export
from training.exact.judged import judge
from training.graphs import samples
from training.recover import rebuild


def exact_of_published(repository: Repository, name: str, version: int) -> tuple[Exact, ModelCard, bytes]:
    """The exact graph of a published version, the card to publish it with, and the float weights (.safetensors).

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
    tensors = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    return exact, made, to_safetensors(tensors)


def publish_exact(
    repository: Repository,
    name: str,
    version: int,
    *,
    promote: bool = True,
    weights: bool = True,
    dataset: str | None = None,
) -> int:
    """Publish the exact form of a published float version as the next one; returns its number.

    Without ``weights`` beside it, a training that begins from it takes those of the float version. With ``dataset`` the
    judge must find it no worse than the float graph on that.

    Raises:
        ExactError: the judge finds it worse; otherwise as above.
        DataError: the data set cannot be used.
    """
    exact, card, kept = exact_of_published(repository, name, version)
    if dataset is not None:
        plain = repository.model_path(name, version).read_bytes()
        if reason := judge(plain, exact.content, dataset).reason():
            raise ExactError(reason)
    sheet = samples(exact.content, card)
    lent, logged = kept if weights else None, repository.logged(name, version)
    made = repository.publish(card, exact.content, sheet, weights=lent, logged=logged)
    if promote:
        repository.promote(name, made)
    return made
