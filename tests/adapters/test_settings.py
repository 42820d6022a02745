"""Settings: read once, checked as a whole, secrets hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.settings import APP_DIRECTORY, SettingsError, read_settings, role

MINIMAL = {"AzureWebJobsStorage": "UseDevelopmentStorage=true"}


def test_one_setting_is_enough() -> None:
    settings = read_settings(MINIMAL)
    assert settings.role == "all"
    assert settings.pipelines_dir == APP_DIRECTORY / "pipelines"
    assert settings.pointer_ttl_seconds == 1.0
    assert settings.mlflow_tracking_uri is None


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
                "RATCHET_TRAINING_THREADS": "many",
            }
        )
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    for name in ("AzureWebJobsStorage", "ROLE", "PIPELINES_DIR", "POINTER_TTL_SECONDS", "TRAINING_THREADS"):
        assert name in text
    assert "'teach'; it has to be all, train or serve" in text


def test_secrets_do_not_show() -> None:
    settings = read_settings({"AzureWebJobsStorage": "AccountKey=secret1", "RATCHET_EVENTS_TOPIC_KEY": "secret2"})
    assert "secret" not in repr(settings)


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
