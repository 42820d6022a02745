"""What both storage clients have in common: how long they wait, and how they read."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from adapters.azure_blobs import AzureBlobStore
from adapters.azure_options import BLOCK_BYTES, client_options
from adapters.blobs import StorageUnavailable
from adapters.ledger import LedgerError
from adapters.settings import Settings, read_settings
from adapters.table_ledger import TableLedger


@pytest.fixture
def silent() -> Iterator[Settings]:
    """The settings of an app whose storage takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/account"
        parts = ("AccountName=account", "AccountKey=a2V5", f"BlobEndpoint={address}", f"TableEndpoint={address}")
        settings = {"AzureWebJobsStorage": ";".join(parts), "RATCHET_STORAGE_TIMEOUT_SECONDS": "1"}
        yield read_settings(settings)


def ask_blobs(settings: Settings) -> object:
    return AzureBlobStore.from_settings(settings).get("container/blob")


def ask_ledger(settings: Settings) -> object:
    return list(TableLedger.from_settings(settings).rows("pipeline"))


@pytest.mark.parametrize("ask", [ask_blobs, ask_ledger])
def test_silent_storage_is_given_up_after_the_set_time(silent: Settings, ask: Callable[[Settings], object]) -> None:
    with pytest.raises((StorageUnavailable, LedgerError), match="timed out"):
        ask(silent)


def test_blobs_are_read_in_large_blocks(silent: Settings) -> None:
    assert client_options(silent)["transport"].connection_config.data_block_size == BLOCK_BYTES
