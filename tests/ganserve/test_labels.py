import numpy as np
import pytest

from ganserve import labels
from ganserve.labels import UnknownLabel
from tests.tiny import CLASSES, card

DIGITS = card("m", classes=[str(number) for number in range(1, 13)])


@pytest.mark.parametrize(("label", "index"), [(0, 0), (2, 2), ("two", 2), ("2", 2), ("zero", 0)])
def test_a_label_is_a_class_name_or_an_index(label: int | str, index: int) -> None:
    assert labels.index(label, card("m")) == index


def test_a_string_that_is_a_class_name_names_that_class() -> None:
    assert labels.index("12", DIGITS) == 11
    assert labels.index(11, DIGITS) == 11


def test_digits_in_an_address_are_read_as_a_bare_number_in_json_is() -> None:
    assert [labels.read(text) for text in ("3", "03", "three", "-1", "1234567890", "")] == [
        3, 3, "three", "-1", "1234567890", ""
    ]  # fmt: skip


@pytest.mark.parametrize("label", [3, -1, "three", "3", "-1", ""])
def test_what_the_model_does_not_have_is_refused_with_what_it_has(label: int | str) -> None:
    with pytest.raises(UnknownLabel, match="expected an index from 0 to 2 or one of zero, one, two"):
        labels.index(label, card("m"))


def test_of_many_classes_the_first_are_listed() -> None:
    with pytest.raises(UnknownLabel, match=r"19, \.\.\.$"):
        labels.index("no", card("m", classes=[str(number) for number in range(100)]))


def test_without_a_label_the_classes_come_in_turn() -> None:
    assert labels.rows(None, 5, card("m")).tolist() == [0, 1, 2, 0, 1]


def test_one_label_is_for_all_and_a_list_is_taken_in_turn() -> None:
    assert labels.rows("two", 3, card("m")).tolist() == [2, 2, 2]
    made = labels.rows([2, CLASSES[0]], 5, card("m"))
    assert made.tolist() == [2, 0, 2, 0, 2]
    assert made.dtype == np.int64


def test_a_model_without_classes_takes_no_label() -> None:
    plain = card("m", conditional=False)
    assert labels.rows(None, 2, plain).tolist() == [0, 0]
    with pytest.raises(UnknownLabel, match="has no classes"):
        labels.rows(0, 2, plain)
