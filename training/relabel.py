"""Labels of two orders of the same class names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from training.data import DataError, Dataset


def order(own: Sequence[str], other: Sequence[str], whose: tuple[str, str]) -> Tensor:
    """For each class of ``other`` its index in ``own``, int64 [classes]: ``order(...)[label]`` is the label in ``own``.

    Args:
        whose: what has the classes, in words: ``own`` first.

    Raises:
        DataError: the names differ; the message lists what each side has alone.
    """
    if sorted(own) != sorted(other):
        alone = [sorted(set(mine) - set(others)) for mine, others in ((own, other), (other, own))]
        told = [f"{name} alone: {', '.join(classes) or 'none'}" for name, classes in zip(whose, alone, strict=True)]
        raise DataError(f"the classes of {whose[0]} are not those of {whose[1]} ({'; '.join(told)})")
    place = {name: index for index, name in enumerate(own)}
    return torch.tensor([place[name] for name in other], dtype=torch.int64)


def in_order(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The same pictures with labels as indices into ``classes``. Raises DataError where the names differ."""
    if dataset.labels is None or dataset.classes == tuple(classes):
        return dataset
    places = order(classes, dataset.classes, ("the version to begin from", "the data set"))
    return dataclasses.replace(dataset, labels=places[dataset.labels], classes=tuple(classes))
