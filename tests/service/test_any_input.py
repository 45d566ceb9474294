"""Every documented call of these resources, fed with whatever the document allows: only what it tells comes back."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from tests.service.conftest import ADMIN, Serve

PATHS = [
    "/generate",
    "/images/{model}/{version}/{label}/{seed}.png",
    "/verify",
    "/morph",
    "/datasets/synthetic",
    "/models/{name}",
    "/models/{name}/{version}",
    "/models/{name}/live",
    "/jobs",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}",
    "/v2/repository/index",
    "/v2/repository/models/{name}/load",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_input_makes_the_server_fail_or_answer_what_the_document_does_not_know(serve: Serve, path: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", serve(max_images=16, max_dataset_images=64).app)
    operations = list(schema.include(path=path).get_all_operations())
    assert operations
    for found in operations:
        assert isinstance(found, Ok), found

        @settings(
            max_examples=20,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=found.ok().as_strategy())
        def check(case: schemathesis.Case[Any]) -> None:
            checks = [not_a_server_error, status_code_conformance, content_type_conformance]
            case.call_and_validate(headers=ADMIN, checks=checks)

        check()
