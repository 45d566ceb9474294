"""Every documented call, fed with what the document allows and what it forbids, without a token and with either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from tests.campaigns.journal import Journal
from tests.campaigns.serving import ADMIN, USER, serving
from tests.ganserve.zips import archive, picture

# What is given for an archive is no archive, or a small one.
SOUND = archive({"a/1.png": picture(1), "b/1.png": picture(2)})


@schemathesis.serializer("application/zip")
def _zip(context: Any, value: Any) -> bytes:
    return SOUND if len(str(value)) % 4 else str(value).encode("utf-8", "replace")


TITLE = "Fuzzed calls"
PROMISE = (
    "Cases that schemathesis makes of the OpenAPI document, valid and not: every answer is one that the document "
    "tells, none is a server's error, and the log has no traceback."
)
CASES = 100_000
BLOCK = 100
LIMITS = ("--max-images", "16", "--max-dataset-images", "64")
TOKENS: tuple[tuple[str, dict[str, str]], ...] = (("none", {}), ("user", USER), ("admin", ADMIN))
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]
# In half of the blocks an address names what is there, so that cases come further than its 404.
KNOWN = {"name": "digits", "model": "digits", "version": 1, "label": "1", "seed": 7}


def run(journal: Journal, folder: Path) -> None:
    """Blocks of cases of one operation with one token."""
    with serving(folder, *LIMITS) as running:
        schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
        found = list(schema.get_all_operations())
        operations = [one.ok() for one in found if isinstance(one, Ok)]
        assert len(operations) == len(found)
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        told = ""
        for number in journal.open():
            round_, index = divmod(number, len(operations))
            token, headers = TOKENS[round_ % 3]
            mode, known = modes[round_ // 3 % 2], bool(round_ // 6 % 2)
            chance = journal.random(number).getrandbits(64)
            tried, broken = _block(operations[index], mode, headers, chance, known=known)
            log = running.told()
            broken = broken or (log if log != told else "")
            told = log
            kind = f"{operations[index].label}, token: {token}"
            journal.add(kind, mode.value, broken, cases=max(1, tried))


def _block(
    operation: Any, mode: GenerationMode, headers: dict[str, str], chance: int, *, known: bool
) -> tuple[int, str]:
    tried = 0
    # What hypothesis sees once and not again, it tells without the answer.
    first: list[str] = []
    try:
        strategy = operation.as_strategy(generation_mode=mode)
    except Exception as error:
        # Nothing about this operation could be wrong, or right.
        return 1, "" if "negat" in str(error).lower() else repr(error)

    @seed(chance)
    @settings(
        max_examples=BLOCK,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(case=strategy)
    def check(case: schemathesis.Case[Any]) -> None:
        nonlocal tried
        tried += 1
        if known:
            there = {key: value for key, value in KNOWN.items() if key in case.path_parameters}
            case.path_parameters = {**case.path_parameters, **there}
        try:
            case.call_and_validate(headers=headers, checks=CHECKS, timeout=60)
        except FailureGroup as group:
            first.append(f"{case.as_curl_command()}: {'; '.join(str(failure) for failure in group.exceptions)}")
            raise
        except (AssertionError, httpx.HTTPError, OSError) as error:
            first.append(f"{case.as_curl_command()}: {error!r}")
            raise

    try:
        check()
    except (Exception, FailureGroup) as error:
        if type(error).__name__ in ("Unsatisfiable", "SkipTest", "Skipped"):
            return tried, ""
        return tried, (first[0] if first else f"{type(error).__name__}: {json.dumps(str(error))}")[:4000]
    return tried, ""
