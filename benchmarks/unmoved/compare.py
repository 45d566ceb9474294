"""What was lost or differs between two records."""

from __future__ import annotations

from typing import Any

# What documents a call but does not decide how it is answered.
WORDS = {"description", "summary", "title", "example", "examples", "x-codeSamples"}
# Where a record may gain: these hold everything that clients, later runs or callers of a command knew before.
MAY_GAIN = ("openapi", "config", "checkpoint", "card", "measures", "options", "files")
LONGEST = 160


def compare(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Differences, and notes of what differs without being one."""
    differences: list[str] = []
    notes: list[str] = []
    for name, value in before.get("machine", {}).items():
        if after.get("machine", {}).get(name) != value:
            notes.append(f"{name} is {after.get('machine', {}).get(name)}, and was {value}: digests may differ by that")
    for part in before:
        if part == "machine":
            continue
        if part not in after:
            notes.append(f"{part} was not recorded again")
            continue
        _walk([part], before[part], after[part], part in MAY_GAIN, differences, notes)
    answers = _answers(before.get("openapi", {}))
    harmless = [line for line in differences if any(line.startswith(f"{place}: new") for place in answers)]
    return [line for line in differences if line not in harmless], notes + harmless


def _answers(openapi: dict[str, Any]) -> list[str]:
    """Where ``openapi.json`` tells which fields its answers always have: the schemas that no call asks for."""
    schemas = openapi.get("components", {}).get("schemas", {})
    calls = [call for path in openapi.get("paths", {}).values() for call in path.values() if isinstance(call, dict)]
    asked: set[str] = set()
    looked = {name for call in calls for name in _named([call.get("requestBody"), call.get("parameters")])}
    while looked:
        asked |= looked
        looked = {name for known in looked for name in _named(schemas.get(known))} - asked
    return [f"openapi > components > schemas > {name} > required" for name in schemas if name not in asked]


def _named(value: Any) -> set[str]:
    """Names of the schemas that a part of ``openapi.json`` refers to."""
    if isinstance(value, dict):
        own = {str(value["$ref"]).rpartition("/")[2]} if "$ref" in value else set()
        return own.union(*(_named(held) for held in value.values()))
    return set().union(*(_named(held) for held in value)) if isinstance(value, list) else set()


def _walk(path: list[str], before: Any, after: Any, may_gain: bool, differences: list[str], notes: list[str]) -> None:
    """Add what differs below ``path``."""
    where = " > ".join(path)
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            inside = may_gain or key in MAY_GAIN
            if key not in after:
                (notes if may_gain and key in WORDS else differences).append(f"{where}: {key} is gone")
            elif not (may_gain and key in WORDS and _is_text(path)):
                _walk([*path, key], value, after[key], inside, differences, notes)
            elif value != after[key]:
                notes.append(f"{where}: {key} reads otherwise")
        gained = [key for key in after if key not in before]
        if gained:
            (notes if may_gain else differences).append(f"{where}: new: {', '.join(gained)}")
    elif isinstance(before, list) and isinstance(after, list) and may_gain:
        _walk_lists(path, before, after, differences, notes)
    elif before != after:
        differences.append(f"{where}: {_short(before)} became {_short(after)}")


def _walk_lists(path: list[str], before: list[Any], after: list[Any], differences: list[str], notes: list[str]) -> None:
    """Lists that may gain: named objects are matched by name, the others by what they are, in any order."""
    where = " > ".join(path)
    named = all(isinstance(item, dict) and "name" in item for item in before)
    if named and before:
        found = {_name(item): item for item in after if isinstance(item, dict) and "name" in item}
        for item in before:
            if _name(item) not in found:
                differences.append(f"{where}: {_name(item)} is gone")
            else:
                _walk([*path, _name(item)], item, found[_name(item)], True, differences, notes)
    elif len(before) == len(after) and any(isinstance(item, dict | list) for item in before):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            _walk([*path, str(index)], old, new, True, differences, notes)
    else:
        for item in before:
            if item not in after:
                differences.append(f"{where}: {_short(item)} is gone")
    if named and before:
        known = {_name(item) for item in before}
        gained = [item for item in after if "name" not in item or _name(item) not in known]
        narrower = any(item.get("required") for item in gained)
    else:
        gained = [item for item in after if item not in before]
        narrower = path[-1] == "required"
    if gained:
        # What a caller must send may not grow.
        (differences if narrower else notes).append(f"{where}: new: {_short(gained)}")


def _is_text(path: list[str]) -> bool:
    """Whether ``description`` and the like are words here, and not the names of fields or of schemas."""
    return path[-1] not in ("properties", "schemas")


def _name(item: dict[str, Any]) -> str:
    return f"{item['name']} in {item['in']}" if "in" in item else str(item["name"])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
