"""Settings: read once, checked as a whole, secrets hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.azure_blobs import AzureBlobStore
from adapters.settings import APP_DIRECTORY, SettingsError, read_settings, role
from adapters.table_ledger import TableLedger

MINIMAL = {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}


def test_one_setting_is_enough() -> None:
    settings = read_settings(MINIMAL)
    assert settings.role == "all"
    assert settings.pipelines_dir == APP_DIRECTORY / "pipelines"
    assert settings.pointer_ttl_seconds == 1.0
    assert (settings.max_body_bytes, settings.max_rows, settings.request_seconds) == (10_485_760, 100_000, 30.0)
    assert settings.mlflow_tracking_uri is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", ""),
        ("app.azurewebsites.net", "https://app.azurewebsites.net"),
        ("app.example:8443", "https://app.example:8443"),
        ("127.0.0.1:7071", "http://127.0.0.1:7071"),
        ("localhost:7071", "http://localhost:7071"),
        ("[::1]:7071", "http://[::1]:7071"),
    ],
)
def test_where_the_app_answers(host: str, url: str) -> None:
    assert read_settings({**MINIMAL, "WEBSITE_HOSTNAME": host}).url == url


@pytest.mark.parametrize("host", ["https://app", "app/path", "app:port", "user@app", ":7071"])
def test_a_host_is_no_address(host: str) -> None:
    with pytest.raises(SettingsError, match=r"WEBSITE_HOSTNAME is .*; it has to be a host"):
        read_settings({**MINIMAL, "WEBSITE_HOSTNAME": host})


def test_an_identity_needs_two_addresses() -> None:
    identity = {
        "AzureWebJobsStorage__blobServiceUri": "https://a.blob.core.windows.net",
        "AzureWebJobsStorage__tableServiceUri": "https://a.table.core.windows.net",
        "AzureWebJobsStorage__clientId": "id",
    }
    assert read_settings(identity).client_id == "id"
    with pytest.raises(SettingsError, match="AzureWebJobsStorage is missing"):
        read_settings({"AzureWebJobsStorage__blobServiceUri": "https://a.blob.core.windows.net"})


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(
            {
                "RATCHET_ROLE": "teach",
                "RATCHET_PIPELINES_DIR": str(tmp_path / "nowhere"),
                "RATCHET_POINTER_TTL_SECONDS": "-1",
                "RATCHET_POINTER_MAX_AGE_SECONDS": "never",
                "RATCHET_CACHE_MEGABYTES": "-5",
                "RATCHET_VERSIONS_KEPT": "1.5",
                "RATCHET_TRAINING_THREADS": "many",
                "RATCHET_MAX_BODY_BYTES": "10MB",
                "RATCHET_MAX_ROWS": "0",
                "RATCHET_REQUEST_SECONDS": "231",
            }
        )
    text = str(caught.value)
    assert len(caught.value.problems) == 11
    for name in ("AzureWebJobsStorage", "ROLE", "PIPELINES_DIR", "POINTER_TTL_SECONDS", "POINTER_MAX_AGE_SECONDS"):
        assert name in text
    assert "RATCHET_CACHE_MEGABYTES is '-5'; it has to be a whole number from 0 to 1000000" in text
    assert "RATCHET_VERSIONS_KEPT is '1.5'; it has to be a whole number from 0 to 100" in text
    assert "RATCHET_TRAINING_THREADS is 'many'; it has to be a whole number from 0 to 256" in text
    for name in ("MAX_BODY_BYTES", "MAX_ROWS", "REQUEST_SECONDS"):
        assert name in text
    assert "'teach'; it has to be all, train or serve" in text


def test_secrets_do_not_show() -> None:
    settings = read_settings(
        {
            "AzureWebJobsStorage": "AccountName=a;AccountKey=secret1",
            "RATCHET_EVENTS_TOPIC_ENDPOINT": "https://topic",
            "RATCHET_EVENTS_TOPIC_KEY": "secret2",
            "MLFLOW_TRACKING_URI": "https://user:secret3@mlflow",
        }
    )
    assert "secret" not in repr(settings)
    assert "https://topic" in repr(settings)


@pytest.mark.parametrize(
    "connection",
    [
        "UseDevelopmentStorage=true",
        "UseDevelopmentStorage=true;",
        "usedevelopmentstorage=True",
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=YQ==;EndpointSuffix=core.windows.net",
        "BlobEndpoint=https://a.blob.x;TableEndpoint=https://a.table.x;SharedAccessSignature=sv=2025&sig=x",
    ],
)
def test_what_storage_shows_is_a_connection_string(connection: str) -> None:
    settings = read_settings({"AzureWebJobsStorage": connection})
    AzureBlobStore.from_settings(settings)
    TableLedger.from_settings(settings)


@pytest.mark.parametrize(
    "connection",
    ["secret", "AccountKey=secret", "AccountName=a", "AccountName=;AccountKey=secret", "AccountName=a;secret"],
)
def test_another_text_is_not_and_stays_out_of_the_message(connection: str) -> None:
    with pytest.raises(SettingsError, match="AzureWebJobsStorage is no connection string") as caught:
        read_settings({"AzureWebJobsStorage": connection})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["account.blob.core.windows.net", "ftp://x", "https://"])
def test_addresses_are_addresses(address: str) -> None:
    names = ("RATCHET_EVENTS_TOPIC_ENDPOINT", "AzureWebJobsStorage__blobServiceUri")
    with pytest.raises(SettingsError) as caught:
        read_settings({**MINIMAL, **dict.fromkeys(names, address)})
    assert len(caught.value.problems) == len(names)
    assert all(f"{name} is '{address}'" in str(caught.value) for name in names)


def test_a_key_without_its_topic_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="RATCHET_EVENTS_TOPIC_ENDPOINT is missing"):
        read_settings({**MINIMAL, "RATCHET_EVENTS_TOPIC_KEY": "secret"})


@pytest.mark.parametrize("value", ["nan", "inf", "-0.1", "3601", "soon"])
def test_a_ttl_is_a_time(value: str) -> None:
    with pytest.raises(SettingsError, match="RATCHET_POINTER_TTL_SECONDS"):
        read_settings({**MINIMAL, "RATCHET_POINTER_TTL_SECONDS": value})


def test_empty_is_as_good_as_absent() -> None:
    """The example file has empty values for what is optional."""
    optional = ("RATCHET_EVENTS_TOPIC_ENDPOINT", "RATCHET_EVENTS_TOPIC_KEY", "MLFLOW_TRACKING_URI", "RATCHET_ROLE")
    assert read_settings({**MINIMAL, **dict.fromkeys(optional, " ")}) == read_settings(MINIMAL)


def test_the_registry_is_asked_for_where_it_is_needed() -> None:
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI"):
        read_settings(MINIMAL).require_mlflow()
    assert read_settings({**MINIMAL, "MLFLOW_TRACKING_URI": "http://x"}).require_mlflow() == "http://x"


@pytest.mark.parametrize(("value", "expected"), [("", "all"), ("all", "all"), ("train", "train"), ("serve", "serve")])
def test_the_role_alone_can_be_read_without_the_rest(value: str, expected: str) -> None:
    assert role({"RATCHET_ROLE": value} if value else {}) == expected


def test_a_wrong_role_is_an_error() -> None:
    with pytest.raises(SettingsError, match="RATCHET_ROLE"):
        role({"RATCHET_ROLE": "teach"})


PRICES = {
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "RATCHET_PRICE_GB_SECOND": "0.000026",
    "RATCHET_PRICE_MILLION_EXECUTIONS": "0.4",
    "RATCHET_PRICES_AS_OF": "2026-11-01",
}


def test_prices_belong_together() -> None:
    pricing = read_settings(PRICES).pricing
    assert (pricing.gb_second, pricing.million_executions, pricing.as_of) == (0.000026, 0.4, "2026-11-01")
    for name in list(PRICES)[1:]:
        with pytest.raises(SettingsError, match=f"{name} missing"):
            read_settings({key: value for key, value in PRICES.items() if key != name})
    with pytest.raises(SettingsError, match="a day, such as"):
        read_settings({**PRICES, "RATCHET_PRICES_AS_OF": "lately"})
    with pytest.raises(SettingsError, match="a price"):
        read_settings({**PRICES, "RATCHET_PRICE_GB_SECOND": "nan"})


@pytest.mark.parametrize(
    ("environ", "account"),
    [
        ({"AzureWebJobsStorage": "UseDevelopmentStorage=true"}, "devstoreaccount1"),
        ({"AzureWebJobsStorage": "AccountName=ours;AccountKey=YQ=="}, "ours"),
        (
            {
                "AzureWebJobsStorage__blobServiceUri": "https://ours.blob.core.windows.net",
                "AzureWebJobsStorage__tableServiceUri": "https://ours.table.core.windows.net",
            },
            "ours",
        ),
        (
            {
                "AzureWebJobsStorage__blobServiceUri": "https://data.example.com",
                "AzureWebJobsStorage__tableServiceUri": "https://tables.example.com",
            },
            "",
        ),
    ],
)
def test_the_accounts_name(environ: dict[str, str], account: str) -> None:
    assert read_settings(environ).account == account
