"""Two orders of the same class names mean the same classes; other names are refused by name."""

from __future__ import annotations

import pytest
import torch

from training.data import DataError, Dataset
from training.relabel import in_order, order

IMAGES = torch.arange(4, dtype=torch.uint8)[:, None, None, None]


def test_a_label_is_carried_over_by_its_name() -> None:
    own, other = ("dog", "cat", "10"), ("10", "cat", "dog")
    places = order(own, other, ("a", "b"))
    assert [own[places[label]] for label in range(3)] == list(other)


def test_a_data_set_in_another_order_has_the_same_pictures_of_the_same_names() -> None:
    dataset = Dataset("pets", IMAGES, torch.tensor([0, 1, 1, 0]), ("cat", "dog"))
    turned = in_order(dataset, ["dog", "cat"])
    assert turned.classes == ("dog", "cat")
    assert turned.labels is not None
    assert [turned.classes[label] for label in turned.labels] == ["cat", "dog", "dog", "cat"]
    assert turned.images is dataset.images
    assert in_order(dataset, ["cat", "dog"]) is dataset


def test_other_names_are_refused_with_what_each_side_has_alone() -> None:
    dataset = Dataset("pets", IMAGES, torch.tensor([0, 1, 1, 0]), ("cat", "dog"))
    with pytest.raises(DataError, match="begin from alone: bird; the data set alone: dog"):
        in_order(dataset, ["cat", "bird"])
    with pytest.raises(DataError, match="begin from alone: bird; the data set alone: none"):
        in_order(dataset, ["cat", "dog", "bird"])
