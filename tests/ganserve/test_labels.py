from urllib.parse import unquote

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


@pytest.mark.parametrize("label", [3, -1, "three", "3", "-1", ""])
def test_what_the_model_does_not_have_is_refused_with_what_it_has(label: int | str) -> None:
    with pytest.raises(UnknownLabel, match="expected an index from 0 to 2 or one of zero, one, two"):
        labels.index(label, card("m"))


ONE_TO_TWELVE = [(number, number - 1) for number in range(1, 13)]


@pytest.mark.parametrize(("number", "place"), ONE_TO_TWELVE)
def test_where_names_are_whole_numbers_a_number_is_a_name(number: int, place: int) -> None:
    assert labels.index(number, DIGITS) == labels.index(str(number), DIGITS) == place


@pytest.mark.parametrize("label", [0, 13, "0", -1])
def test_where_names_are_whole_numbers_there_are_no_indices(label: int | str) -> None:
    with pytest.raises(UnknownLabel, match="names are whole numbers, so expected one of 1, 2, 3"):
        labels.index(label, DIGITS)


def test_one_whole_number_among_the_names_is_enough() -> None:
    mixed = card("m", classes=["cat", "1", "dog"])
    assert labels.index(1, mixed) == 1
    with pytest.raises(UnknownLabel):
        labels.index(2, mixed)


@pytest.mark.parametrize(
    ("classes", "label", "place"),
    [
        (["-1", "0", "1"], -1, 0),
        (["-1", "0", "1"], 0, 1),
        (["01", "02"], 2, 1),
        (["2", "02"], "02", 1),
        (["\u0661", "\u0662"], 1, 0),
    ],
)
def test_a_whole_number_is_what_it_counts_unless_a_name_is_spelt_so(
    classes: list[str], label: int | str, place: int
) -> None:
    assert labels.index(label, card("m", classes=classes)) == place


def test_two_classes_of_one_number_are_told_apart_by_spelling_only() -> None:
    with pytest.raises(UnknownLabel):
        labels.index(1, card("m", classes=["01", "001"]))


@pytest.mark.parametrize("stored", ["caf\u00e9", "cafe\u0301"])
@pytest.mark.parametrize("asked", ["caf\u00e9", "cafe\u0301"])
def test_a_name_is_found_in_either_normal_form(stored: str, asked: str) -> None:
    assert labels.index(asked, card("m", classes=["tea", stored, "milk"])) == 1


def test_a_class_stands_in_an_address_by_its_index_unless_that_is_anothers_name() -> None:
    assert labels.in_path(2, CLASSES) == "2"
    assert labels.in_path(0, DIGITS.classes) == "1"
    assert labels.in_path(1, ["7", "a/b c"]) == "a%2Fb%20c"


def test_a_value_with_commas_is_a_list_unless_a_name_has_one() -> None:
    assert labels.split(["one,two", "zero"], CLASSES) == ["one", "two", "zero"]
    assert labels.split(["one,two", "zero"], ["one,two", "zero"]) == ["one,two", "zero"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("three", "three"), ("ice cream", "ice cream"), ("a,b", "a%2Cb"), ("5%", "5%25"), (" x", "%20x"),
     ("\u732b", "%E7%8C%AB"), ("line\nbreak", "line%0Abreak")],
)  # fmt: skip
def test_a_header_tells_a_name_in_visible_ascii(name: str, told: str) -> None:
    assert labels.header([1, 1], ["other", name]) == told
    assert unquote(told) == name


def test_a_header_tells_names_in_turn_as_long_as_it_is_short() -> None:
    assert labels.header([0, 2], CLASSES) == "zero,two"
    assert labels.header([0, 2] * 200, CLASSES) is None


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
