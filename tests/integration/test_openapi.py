"""The running app against its own description, by schemathesis: requests that fit it, and requests that do not."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.openapi import describe
from tests.integration.served import NAME
from tests.integration.shop import Shop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(450)]

EXAMPLES = 4
"""tests/triggers/test_openapi.py tries many; here the host is between."""
schema = schemathesis.openapi.from_dict(describe([NAME]))


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_app_does_what_its_description_says(case: schemathesis.Case[Any], served: Shop) -> None:
    case.call_and_validate(
        base_url=served.stack.app_url,
        timeout=30,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_headers_conformance,
            response_schema_conformance,
            negative_data_rejection,
        ],
    )


def test_the_app_hands_its_description_out(served: Shop) -> None:
    reply = served.ask("/openapi.json")
    assert reply.status == 200
    names = reply.body["components"]["parameters"]["pipeline"]["schema"]["enum"]
    assert NAME in names
    assert reply.body == describe(names)
