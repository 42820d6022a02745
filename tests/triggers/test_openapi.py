"""The inference functions against their description, by schemathesis: requests that fit it and ones that do not."""

from __future__ import annotations

from collections.abc import Iterator
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
from serving.service import InferenceService
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, publish
from tests.triggers.wsgi import application
from triggers import services

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 25


schema = schemathesis.openapi.from_dict(describe([PIPELINE]))


@pytest.fixture(scope="module", autouse=True)
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The functions answer from a service in memory."""
    blobs = MemoryBlobs()
    publish(blobs, 1)
    service = InferenceService(blobs, tmp_path_factory.mktemp("cache"), 60.0, lambda: (PIPELINE,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "inference", lambda: service)
        patch.setattr(services, "inference_if_there", lambda: service)
        yield


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_functions_do_what_their_description_says(case: schemathesis.Case[Any]) -> None:
    case.call_and_validate(checks=CHECKS, app=application())
