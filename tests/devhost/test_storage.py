from __future__ import annotations

from typing import Any

import pytest
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest
from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy
from yarl import URL

from devhost.errors import ConnectionInvalid
from devhost.storage import DEVELOPMENT_STORAGE, Account, Storage
from tests.devhost.fakes import settings

KEY = "a2V5"
CLOUD = f"DefaultEndpointsProtocol=https;AccountName=store;AccountKey={KEY};EndpointSuffix=core.windows.net"


def test_where_an_account_is() -> None:
    account = Account.parse(CLOUD)
    assert account.endpoints == {
        "blob": "https://store.blob.core.windows.net",
        "queue": "https://store.queue.core.windows.net",
    }
    assert "key" not in repr(account).lower().replace("'key'", "")
    local = Account.parse("UseDevelopmentStorage=true")
    assert local == Account.parse(DEVELOPMENT_STORAGE)
    assert local.endpoints["queue"] == "http://127.0.0.1:10001/devstoreaccount1"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "the setting STORE: it is not set"),
        ("AccountName=a", "no AccountName or no AccountKey"),
        ("AccountName=a;AccountKey=hidden!", "its AccountKey is not base64"),
    ],
)
def test_a_bad_connection_is_named_without_its_secret(text: str | None, problem: str) -> None:
    storage = Storage(settings({} if text is None else {"STORE": text}))
    with pytest.raises(ConnectionInvalid, match=problem) as caught:
        storage.account("STORE", wanted_by="f")
    assert "hidden" not in str(caught.value)


def test_how_a_connection_is_found() -> None:
    environment = {"AzureWebJobsStorage": CLOUD, "AzureWebJobsOTHER": DEVELOPMENT_STORAGE, "OTHER": CLOUD}
    storage = Storage(settings(environment))
    assert storage.account("", wanted_by="f").name == "store"
    assert storage.account("OTHER", wanted_by="f").name == "devstoreaccount1"


@pytest.mark.parametrize(
    ("method", "url", "headers"),
    [
        ("GET", "https://store.queue.core.windows.net/q/messages?visibilitytimeout=60&numofmessages=3", {}),
        ("PUT", "https://store.blob.core.windows.net/c/a%20b%23%C3%A9.csv?comp=metadata", {"x-ms-meta-a": "b"}),
        ("POST", "https://store/q/messages", {"Content-Length": "3", "Content-Type": "application/xml"}),
        ("DELETE", "https://store/q/messages/1?popreceipt=AgAAAAM%2BAA%3D%3D", {}),
    ],
)
def test_requests_are_signed_as_by_the_storage_library(method: str, url: str, headers: dict[str, str]) -> None:
    headers = {"x-ms-date": "Tue, 24 Nov 2026 10:00:00 GMT", "x-ms-version": "2021-12-02", **headers}
    theirs = HttpRequest(method, url, headers=headers)
    policy: Any = SharedKeyCredentialPolicy
    policy("store", KEY).on_request(PipelineRequest(theirs, PipelineContext(None)))
    assert (
        Account.parse(CLOUD).authorization(method, URL(url, encoded=True), headers) == theirs.headers["Authorization"]
    )
