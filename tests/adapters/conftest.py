"""One Azurite and one MLflow for the adapters' tests; each test gets containers, tables and models of its own names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from devhost.azurite import AzuritePorts, azurite_part
from devhost.ports import free_port
from devhost.supervisor import Supervisor
from local.parts import Places, mlflow_part


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


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a running MLflow server."""
    folder = tmp_path_factory.mktemp("mlflow")
    places = Places(folder, AzuritePorts(0, 0, 0), app=0, mlflow=free_port(), events=0)
    with Supervisor(folder / "logs") as supervisor:
        supervisor.start(mlflow_part(places))
        yield places.mlflow_url
