"""The whole stack, once for all tests: Azurite, MLflow, devhost with two workers, the local Event Grid."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from bench.chaos.arena import Arena, arena
from local.parts import REPOSITORY
from local.stack import LocalStack
from tests.activities.world import SPEC
from tests.integration.served import NAME, bring_live
from tests.integration.shop import Shop

PIPELINES = ("path", "workers", "crash", "bad", "lost", "many", "wish", NAME)
"""One pipeline for each test, so that no test depends on what another one did."""
PROTOCOLS_SPEC = SPEC.replace("  town: category\n", "  town: category\n  visits: integer\n  member: boolean\n")
"""With a column of every kind that a feature may have."""


@pytest.fixture(scope="session")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """The stack with a proxy before its storage and its registry, which changes nothing until it is told to."""
    folder = tmp_path_factory.mktemp("stack")
    pipelines = folder / "pipelines"
    pipelines.mkdir()
    for name in PIPELINES:
        spec = (
            (PROTOCOLS_SPEC if name == NAME else SPEC)
            .replace("name: shops", f"name: {name}")
            .replace("seconds: 0,", "seconds: 0.2,")
        )
        spec = spec.replace("longest_wait_seconds: 0}", "longest_wait_seconds: 5}")
        (pipelines / f"{name}.yaml").write_text(spec, encoding="utf-8")
    shutil.copy(REPOSITORY / "pipelines" / "flight-delays.yaml", pipelines)  # for the examples of docs/protocols.md
    env = {"RATCHET_POINTER_TTL_SECONDS": "0.2"}
    env["RATCHET_RECONCILE_SCHEDULE"] = "0 0 0 1 1 *"  # only when a test asks for it
    with arena(folder / "data", pipelines, env) as running:
        yield running


@pytest.fixture(scope="session")
def stack(proxied: Arena) -> LocalStack:
    return proxied.stack


@pytest.fixture(scope="session")
def served(stack: LocalStack) -> Iterator[Shop]:
    """The pipeline `protocols`, with its first model live in every worker."""
    with Shop.of(stack, NAME) as shop:
        bring_live(shop, stack)
        yield shop


@pytest.fixture
def shop(stack: LocalStack, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """The pipeline that the test's `pipeline` mark names."""
    (name,) = request.node.get_closest_marker("pipeline").args
    with Shop.of(stack, name) as shop:
        yield shop
