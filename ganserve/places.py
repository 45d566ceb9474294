"""What the folders of a set's pictures are: those around everything, splits, classes, and what lies below them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ganserve.entries import SetError

_WORDS = {
    "train": "train training entrenamiento treino treinamento apprentissage entraînement entrainement addestramento "
    "trainieren обучение eğitim 训练 訓練 学習 학습",
    "test": "test testing prueba pruebas teste testes prova тест 测试 測試 テスト 테스트",
    "validation": "val valid validation dev eval evaluation holdout validación validacion validação validacao "
    "validierung validazione валидация doğrulama 验证 驗證 検証 검증",
}
SPLITS: Mapping[str, str] = {word: split for split, words in _WORDS.items() for word in words.split()}
# Glued to a word that says of what: of names that differ by nothing else, as mytrain and mytest.
_LONG = "training|train|testing|test|validation|valid|val"
_AT_AN_END = re.compile(rf"(?<![a-z])(?:{_LONG})|(?:{_LONG})(?![a-z])")
# As one word with what it is a split of.
_GLUED = re.compile(r"(?:set|data|images|split|s?daten|s?bilder|集)$")
# What pictures are called beside what was drawn on them.
_IMAGES = re.compile(r"ima?ge?s?|jpe?gimages|pictures")
_DRAWN = re.compile(r"(?:.*[ _-])?masks?|annotations?|labels?|gt|segmentation(?:class|object)?s?")

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a picture lies: its split, its class folder, and what stands above that."""

    split: str | None
    label: str | None
    above: Parts


def places(paths: Sequence[Parts]) -> list[Place]:
    """What each picture's folders are: around everything, a split, a class, or below one.

    Raises:
        SetError: splits, and none of them to train on.
    """
    top = _around(paths)
    within = [len(path) > len(top) + 1 and path[: len(top)] == top for path in paths]
    below: dict[str, list[Parts]] = {}
    for path, inside in zip(paths, within, strict=True):
        if inside:
            below.setdefault(path[len(top)], []).append(path[len(top) + 1 :])
    splits = _splits(below)
    if not splits:
        apart = _apart_within(below)
        found = [
            _placed(path, inside, SPLITS[path[len(top) + 1].lower()] if apart and inside else None, top)
            for path, inside in zip(paths, within, strict=True)
        ]
        if not apart:
            _check_classes(paths, found)
        return found
    inner = _around_splits({name: below[name] for name in splits}, splits)
    found = []
    for path, inside in zip(paths, within, strict=True):
        split = splits.get(path[len(top)]) if inside else None
        above = top if split is None else (*top, path[len(top)], *inner[path[len(top)]])
        deeper = len(path) > len(above) + 1 and path[: len(above)] == above
        found.append(_placed(path, split is not None and deeper, split, above))
    _check_classes(paths, found)
    return found


def _apart_within(below: Mapping[str, Sequence[Parts]]) -> bool:
    """Whether every class is parted into splits of its own, as ``cat/train`` and ``cat/test``."""
    told = {SPLITS.get(path[0].lower()) if len(path) > 1 else None for paths in below.values() for path in paths}
    return len(below) > 1 and None not in told and "train" in told and len(told) > 1


def _check_classes(paths: Sequence[Parts], found: Sequence[Place]) -> None:
    """Raises SetError where folders that would be classes may well be none."""
    below: dict[str, set[str | None]] = {}
    for path, place in zip(paths, found, strict=True):
        if place.label is not None:
            rest = path[len(place.above) + 1 :]
            below.setdefault(place.label, set()).add(rest[0] if len(rest) > 1 else None)
    images, drawn = ([name for name in below if kind.fullmatch(name.lower())] for kind in (_IMAGES, _DRAWN))
    if images and drawn and len(images) + len(drawn) == len(below):
        raise SetError(
            f"folders {images[0]!r} and {drawn[0]!r} hold pictures and what was drawn on them, which are no classes: "
            f"name {images[0]!r} alone"
        )
    shared = set.intersection(*below.values()) if len(below) > 1 else set()
    if len(shared) > 1 and None not in set().union(*below.values()):
        one, other, *_ = sorted(below)
        names = ", ".join(map(repr, sorted(map(str, shared))[:2]))
        raise SetError(
            f"folders {one!r} and {other!r} hold folders of the same names ({names}), and either may be the classes: "
            "put the pictures of a class into one folder, or call splits train and test"
        )


def split_of(name: str) -> str | None:
    """The split that a folder's name tells by one of its words, as ``test_set`` does; None for none, or for several."""
    words = (_GLUED.sub("", word) for word in re.split(r"[\W\d_]+", unicodedata.normalize("NFC", name).lower()))
    told = {SPLITS[word] for word in words if word in SPLITS}
    return told.pop() if len(told) == 1 else None


def glued(names: Iterable[str]) -> dict[str, str]:
    """The splits of those names, one of them to train on, that differ only by such a word at an end of another."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        for word in _AT_AN_END.finditer(name.lower()):
            frame = f"{name.lower()[: word.start()]}*{name.lower()[word.end() :]}"
            found.setdefault(frame, {})[name] = SPLITS[word[0]]
    groups = (group for group in found.values() if "train" in group.values() and len(set(group.values())) > 1)
    return {name: split for group in groups for name, split in group.items()}


def _splits(below: Mapping[str, Sequence[Parts]]) -> dict[str, str]:
    """The folders that are splits; none where they are classes. Raises SetError."""
    folders = {name: {path[0] for path in paths if len(path) > 1} for name, paths in below.items()}
    exact = {name: SPLITS[name.lower()] for name in below if name.lower() in SPLITS}
    by_word = {name: split for name in below if (split := split_of(name)) is not None}
    by_word = by_word or glued(below)
    several = len(set(by_word.values())) == len(by_word) > 1
    for found in (exact, by_word if several else {}):
        if "train" not in found.values():
            continue
        # What stands beside two splits of class folders is neither split nor class.
        if len(found) == len(below) or (len(found) > 1 and all(folders[name] for name in found)):
            return found
    if len(exact) == len(below) > 1 and all(folders.values()):
        raise SetError(f"it has the splits {', '.join(sorted(exact))} and none to train on: call one of them train")
    if len(set(by_word.values())) > 1 and by_word.keys() == glued(by_word).keys() and len(by_word) > 2:
        one, other = sorted(by_word)[:: len(by_word) - 1]
        what = f"folders {one!r}, {other!r}, ..."
        raise SetError(f"{what} may be splits or classes: make them train/CLASS and test/CLASS")
    for name in sorted(by_word):
        twins = [other for other in below if other != name and len(folders[name] & folders[other]) > 1]
        if twins:
            raise SetError(
                f"folders {name!r} and {min(twins)!r} hold folders of the same names and may be splits: call them "
                "train and test, or put the pictures of a class into one folder"
            )
    others = {name for name in below if exact.get(name) != "train"}
    for name in below.keys() - others:
        if len(folders[name]) > 1 and not any(folders[other] for other in others):
            raise SetError(
                f"folder {name!r} holds folders of pictures and may be a split, but {min(others)!r} beside it may be a "
                "class: move one of them away"
            )
    return {}


def _placed(path: Parts, inside: bool, split: str | None, above: Parts) -> Place:
    return Place(split, path[len(above)] if inside else None, above)


def _around(paths: Sequence[Parts]) -> Parts:
    """The folders around all others, which tell nothing: each is the only one beside loose pictures, and holds folders
    itself: several of them, or nothing else."""
    top: Parts = ()
    while True:
        inside = [path for path in paths if len(path) > len(top) + 1 and path[: len(top)] == top]
        first = {path[len(top)] for path in inside}
        if len(first) != 1:
            return top
        loose = any(len(path) == len(top) + 2 for path in inside)
        folders = {path[len(top) + 1] for path in inside if len(path) > len(top) + 2}
        if not folders or (loose and len(folders) < 2):
            return top
        top = (*top, first.pop())


def _around_splits(below: Mapping[str, Sequence[Parts]], splits: Mapping[str, str]) -> dict[str, Parts]:
    """The folders around all classes within each split: those that all splits have in common, or one of each split's
    own, as archives are unpacked (``train/train/cat``), or as pictures lie that have no classes (``val/images``)."""
    common = _around([path for paths in below.values() for path in paths])
    own = {split: _around(paths) for split, paths in below.items()}
    first = [{path[0] for path in paths if len(path) > 1} for paths in below.values()]
    apart = all(len(names) == 1 for names in first) and len(set().union(*first)) == len(first) > 1
    around = {name: own[name] if apart else common for name in below}
    within = {name: [path[len(around[name]) :] for path in paths] for name, paths in below.items()}
    told = {name: {path[0] for path in paths if len(path) > 1} for name, paths in within.items()}
    learned = set().union(*(told[name] for name in below if splits[name] == "train"))
    strange = {name: found - learned for name, found in told.items() if len(learned) > 1 and len(found) == 1}
    return {name: (*around[name], *strange.get(name, ())) for name in below}
