"""One Azurite for the adapters' tests; each test gets containers and tables of its own names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from devhost.azurite import AzuritePorts, azurite_part
from devhost.ports import free_port
from devhost.supervisor import Supervisor


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a running Azurite."""
    folder = tmp_path_factory.mktemp("azurite")
    ports = AzuritePorts(free_port(), free_port(), free_port())
    with Supervisor(folder / "logs") as supervisor:
        supervisor.start(azurite_part(folder / "data", ports))
        yield ports.connection_string


@pytest.fixture
def container() -> str:
    """The name of a container that does not exist yet."""
    return f"test-{uuid.uuid4().hex[:12]}"
