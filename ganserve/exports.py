"""Labels beside pictures as other tools write them, as rows of ``metadata.csv``.

* Roboflow's ``_classes.csv``: a column for each class, 1 where a picture is of it.
* ``dataset.json`` of StyleGAN's ``dataset_tool.py``: ``{"labels": [["00000/img00000000.png", 3], ...]}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ganserve.entries import SetError

ONE_HOT, STYLEGAN = "_classes.csv", "dataset.json"
# What Roboflow calls the column of pictures that nobody labelled.
_NO_CLASS = "unlabeled"


def of_one_hot(name: str, table: Sequence[Mapping[str, Any]], file_column: str) -> list[Mapping[str, Any]] | None:
    """Rows with the class as ``label``, none for a picture of no class or of several; None for another table.

    Raises:
        SetError: hardly a picture is of one class.
    """
    found: list[Mapping[str, Any]] = []
    for row in table:
        cells = {column: value for column, value in row.items() if column and column != file_column}
        if not cells or not set(cells.values()) <= {"0", "1"}:
            return None
        classes = [column for column, value in cells.items() if value == "1" and column.lower() != _NO_CLASS]
        found.append({file_column: row.get(file_column), "label": classes[0] if len(classes) == 1 else None})
    if found and sum(row["label"] is not None for row in found) * 2 < len(found):
        raise SetError(f"{name} names several classes for most pictures, or none: each must be of one class")
    return found


def of_stylegan(name: str, text: str, file_column: str) -> list[Mapping[str, Any]] | None:
    """Rows with the number as ``label``; none where the file says that there are no labels; None for another file.

    Raises:
        SetError: labels that are no numbers of classes, or that cannot be read.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        if '"labels"' in text:
            raise SetError(f"{name} is not JSON: {error}") from error
        return None
    if not isinstance(told, dict) or "labels" not in told:
        return None
    labels = told["labels"]
    if labels is None:
        return []
    if not isinstance(labels, list) or not all(isinstance(one, list) and len(one) == 2 for one in labels):
        return None
    if any(isinstance(value, list) for _, value in labels):
        raise SetError(f"{name} holds lists as labels: expected the whole number of each picture's class")
    return [{file_column: path, "label": value} for path, value in labels]
