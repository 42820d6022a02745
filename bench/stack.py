"""Ratchet as a user runs it to serve: Azurite, and devhost with the app in its serving role."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.azure_blobs import AzureBlobStore
from adapters.settings import read_settings
from bench.trees import ROOT
from devhost.azurite import AzuritePorts, azurite_part
from devhost.ports import free_ports
from devhost.probes import http_probe
from devhost.supervisor import Part
from local.flights import PIPELINE


@dataclass(frozen=True, slots=True)
class Stack:
    """Where everything is. `folder` is the caller's, and the caller's to remove."""

    folder: Path
    storage: AzuritePorts
    port: int

    @classmethod
    def on_free_ports(cls, folder: Path) -> Stack:
        blob, queue, table, port = free_ports(4)
        return cls(folder, AzuritePorts(blob, queue, table), port)

    @property
    def url(self) -> str:
        """Of the host."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def infer(self) -> str:
        return f"{self.url}/v2/models/{PIPELINE}/infer"

    def blobs(self) -> AzureBlobStore:
        return AzureBlobStore.from_settings(read_settings({"AzureWebJobsStorage": self.storage.connection_string}))

    def azurite(self) -> Part:
        return azurite_part(self.folder / "azurite", self.storage)

    def settings(self, ttl_seconds: float = 1.0) -> dict[str, str]:
        return {
            "AzureWebJobsStorage": self.storage.connection_string,
            "RATCHET_ROLE": "serve",
            "RATCHET_CACHE_DIR": str(self.folder / "cache"),
            "RATCHET_POINTER_TTL_SECONDS": str(ttl_seconds),
        }

    def host(self, *, workers: int, ttl_seconds: float = 1.0, more: Mapping[str, str] | None = None) -> Part:
        """Ratchet, with `more` settings."""
        settings = {**self.settings(ttl_seconds), **(more or {})}
        return host(ROOT, self.port, self.folder / "state", workers=workers, settings=settings)


def host(app: Path, port: int, state: Path, *, workers: int, settings: dict[str, str]) -> Part:
    """devhost with an app."""
    command = [sys.executable, "-m", "devhost", "start", "--app", str(app), "--port", str(port)]
    command += ["--workers", str(workers), "--state", str(state)]
    probe = http_probe(f"http://127.0.0.1:{port}/admin/host/status")
    return Part("Ratchet" if app == ROOT else "devhost", command, probe, env=settings, cwd=ROOT)
