"""What ``/generate`` takes: a JSON body or a query as one checked request, and the format from ``Accept``."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, Strict, StrictInt, ValidationError
from starlette.datastructures import QueryParams

from ganserve import labels
from ganserve.address import hundredths
from ganserve.card import ModelCard
from ganserve.latents import MAX_SEED
from service.http.errors import BadRequest, Invalid, NotAcceptable, invalid

Format = Literal["png", "webp", "zip", "npz", "json"]
MEDIA: dict[Format, str] = {
    "png": "image/png",
    "webp": "image/webp",
    "zip": "application/zip",
    "npz": "application/x-npz",
    "json": "application/json",
}
_INTEGERS = frozenset({"version", "n", "seed", "columns", "padding", "scale"})
_LISTS = frozenset({"label", "seeds"})

def _hundredths(truncation: float) -> float:
    hundredths(truncation)
    return truncation


Truncation = Annotated[float, Field(gt=0, le=1), AfterValidator(_hundredths)]
TRUNCATED = "latents are scaled by so much, in whole hundredths: less variety, more typical images; 1 without it"
Seed = Annotated[int, Field(strict=True, ge=0, lt=MAX_SEED)]
Label = StrictInt | Annotated[str, Field(max_length=labels.LONGEST_NAME)]


class GenerateRequest(BaseModel):
    """What to generate. Every field may be left out."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"label": 3, "n": 16}, {"label": [0, 1, 2], "seed": 42, "format": "npz"}]
        },
    )

    model: str | None = Field(None, max_length=200, description="a model's name; the default one without it")
    version: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="the live one without it"
    )
    label: Label | Annotated[list[Label], Field(min_length=1)] | None = Field(
        None, description="class name, index, or a list that is taken in turn; the classes in turn without it"
    )
    n: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="how many images; 1 without it"
    )
    seed: Seed | None = Field(None, description="tile i has seed + i; drawn and told without it")
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        None, description="the seed of each tile"
    )
    columns: Annotated[int, Field(strict=True, ge=1)] | None = Field(None, description="columns of the grid")
    padding: Annotated[int, Field(strict=True, ge=0, le=64)] = Field(2, description="pixels between tiles")
    scale: Annotated[int, Field(strict=True, ge=1, le=32)] = Field(
        1, description="whole-number magnification"
    )
    truncation: Annotated[Truncation, Strict()] | None = Field(None, description=TRUNCATED)
    format: Format | None = Field(None, description="wins over the Accept header")

    def settled(self, card: ModelCard) -> GenerateRequest:
        """The request for the version of ``card``."""
        return self


class _Listed(GenerateRequest):
    """One whose labels came as text with a comma: a list, unless names have commas where it goes."""

    _given: list[str] = PrivateAttr()

    def settled(self, card: ModelCard) -> GenerateRequest:
        named = labels.split(self._given, card.classes)
        return self if named == self.label else self.model_copy(update={"label": _one_or_all(named)})


def parse_json(body: bytes) -> GenerateRequest:
    """Raises Problem 400 for what is no JSON object, 422 for wrong fields or values."""
    try:
        return GenerateRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid":
            raise BadRequest(f"the body is not JSON: {error.errors()[0]['ctx']['error']}") from None
        raise invalid(error, fields=GenerateRequest.model_fields) from None


# The same few addresses are asked for again and again, by browsers and by caches that revalidate.
@lru_cache(maxsize=1024)
def parse_query(query: bytes) -> GenerateRequest:
    """Raises Invalid for unknown or repeated parameters and wrong values."""
    fields: dict[str, Any] = {}
    for name, value in QueryParams(query).multi_items():
        if name in _LISTS:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            raise Invalid(f"{name} is given twice: give it once")
        else:
            fields[name] = _integer(name, value) if name in _INTEGERS else value
    if "truncation" in fields:
        fields["truncation"] = _decimal("truncation", fields["truncation"])
    if "seeds" in fields:
        fields["seeds"] = [_integer("seeds", value) for value in labels.split(fields["seeds"])]
    given = fields.get("label")
    if given is not None:
        fields["label"] = _one_or_all(labels.split(given))
    listed = any("," in value for value in given or ())
    try:
        made = (_Listed if listed else GenerateRequest).model_validate(fields)
    except ValidationError as error:
        raise invalid(error, fields=GenerateRequest.model_fields) from None
    if isinstance(made, _Listed):
        made._given = given or []
    return made


def refuse_unknown(query: bytes, *known: str) -> None:
    """Raises Invalid for a parameter that a call does not have, which would be passed over without a word."""
    for name in QueryParams(query):
        if name not in known:
            raise Invalid(f"{json.dumps(name[:40])} is no parameter of this call: expected {', '.join(known)}")


def _one_or_all(named: list[str]) -> Any:
    return named[0] if len(named) == 1 else named


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,20}", text):
        raise Invalid(f"{name}: {json.dumps(text[:40])} is not a whole number")
    return int(text)


def _decimal(name: str, text: str) -> float:
    if not re.fullmatch(r"[0-9]{0,20}\.?[0-9]{1,20}", text):
        raise Invalid(f"{name}: {json.dumps(text[:40])} is not a number such as 0.7")
    return float(text)


def parameters() -> list[dict[str, Any]]:
    """The fields as OpenAPI's query parameters."""
    properties = GenerateRequest.model_json_schema()["properties"]
    found = []
    for name, schema in properties.items():
        if name in _LISTS:
            kind: dict[str, Any] = {
                "type": "array",
                "items": {"type": "integer" if name == "seeds" else "string"},
            }
        else:
            choices = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
            kind = {k: v for k, v in choices[0].items() if k not in ("description", "title", "default")}
        found.append(
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": kind,
                "description": schema["description"],
            }
        )
    return found


# Clients say the same few things again and again.
@lru_cache(maxsize=256)
def negotiate(asked: Format | None, accept: str) -> Format:
    """The format: the one asked for, else the best that ``Accept`` takes. Raises Problem 406."""
    if asked is not None:
        return asked
    ranked: list[tuple[float, Format]] = []
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if media in ("", "*/*", "image/*") and quality:
            ranked.append((quality - 0.001, "png"))
        ranked += [(quality, name) for name, kind in MEDIA.items() if kind == media and quality]
    if not ranked:
        raise NotAcceptable(
            f"none of what Accept takes can be made: expected one of {', '.join(MEDIA.values())}"
        )
    return max(ranked, key=lambda pair: pair[0])[1]
