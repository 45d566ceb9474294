"""ganserve check FOLDER

ganserve check pets.zip --size 32
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ganserve import calls, errors


def main(arguments: Sequence[str]) -> int:
    """Report on a set of pictures as training would read it; returns the exit status."""
    options = calls.parser("check", "What a folder or a ZIP of pictures is, as training would read it.")
    options.add_argument("path", metavar="PATH", help="a folder of class folders or of pictures, or a ZIP of one")
    options.add_argument("--size", type=_positive, help="edge that it would be read at; else the median of its edges")
    options.add_argument("--channels", type=int, choices=(1, 3), help="grey or colour; else as most pictures are")
    options.add_argument("--label-column", help="the column of metadata.csv or metadata.jsonl that holds labels")
    options.add_argument("--json", action="store_true", help="the report as JSON")
    given = options.parse_args(arguments)
    return calls.run(lambda: _report(given.path, given.size, given.channels, given.label_column, given.json))


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ValueError(text)
    return int(text)


def _report(path: str, size: int | None, channels: int | None, column: str | None, as_json: bool) -> None:
    from ganserve import reading, sets

    place = Path(path)
    if not place.exists():
        raise errors.NotFound(f"{path} is not there: expected a folder or a ZIP of pictures")
    try:
        entries = sets.folder_entries(place) if place.is_dir() else sets.archive_entries(place)
        report = reading.survey(entries, size=size, channels=channels, column=column)
    except (sets.SetError, reading.Unreadable) as error:
        raise errors.Invalid(f"{path}: {error}") from error
    print(json.dumps(report.as_dict(), ensure_ascii=False) if as_json else "\n".join(report.lines()))
