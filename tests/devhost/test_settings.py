from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devhost.errors import SettingMissing, SettingsInvalid
from devhost.host import HTTP_THREADS, worker_environment
from devhost.settings import QueueSettings, Settings, load, parse_time_span


def load_with(folder: Path, host: Any = None, local: Any = None, environment: dict[str, str] | None = None) -> Settings:
    (folder / "host.json").write_text("\ufeff" + json.dumps({"version": "2.0"} if host is None else host))
    if local is not None:
        (folder / "local.settings.json").write_text(json.dumps(local))
    return load(folder, environment or {})


def test_defaults(tmp_path: Path) -> None:
    settings = load_with(tmp_path)
    assert settings.route_prefix == "api"
    assert settings.function_timeout == 1800
    assert settings.log_level == "INFO"
    assert settings.hub == "TestHubName"
    assert settings.body_limit == 100 * 1024 * 1024


def test_host_json_is_honoured(tmp_path: Path) -> None:
    host = {
        "functionTimeout": "00:01:30",
        "logging": {"logLevel": {"default": "Warning"}},
        "extensions": {
            "http": {"routePrefix": ""},
            "durableTask": {
                "hubName": "%HUB%",
                "maxConcurrentOrchestratorFunctions": 3,
                "maxConcurrentActivityFunctions": 2,
            },
        },
    }
    settings = load_with(tmp_path, host, environment={"HUB": "Mine"})
    assert (settings.route_prefix, settings.function_timeout, settings.log_level) == ("", 90, "WARNING")
    assert (settings.hub, settings.max_orchestrators, settings.max_activities) == ("Mine", 3, 2)


def test_the_queues_of_host_json(tmp_path: Path) -> None:
    assert load_with(tmp_path).queues == QueueSettings()
    queues = {
        "batchSize": 4,
        "maxDequeueCount": 2,
        "visibilityTimeout": "00:00:30",
        "maxPollingInterval": "00:00:00.25",
        "messageEncoding": "None",
    }
    settings = load_with(tmp_path, {"extensions": {"queues": queues}})
    assert settings.queues == QueueSettings(
        base64_text=False,
        batch_size=4,
        new_batch_threshold=2,
        max_dequeue_count=2,
        visibility_timeout=30.0,
        max_polling_interval=0.25,
    )


def test_what_has_no_effect_is_named(tmp_path: Path) -> None:
    host = {
        "version": "2.0",
        "extensionBundle": {"id": "x"},
        "telemetryMode": "OpenTelemetry",
        "logging": {"logLevel": {"default": "Warning", "Host.Results": "Error"}},
        "extensions": {"queues": {"batchsize": 3, "batchSize": 3}, "serviceBus": {"prefetchCount": 1}},
    }
    assert load_with(tmp_path, host).ignored == (
        "telemetryMode",
        "logging.logLevel.Host.Results",
        "extensions.queues.batchsize",
        "extensions.serviceBus",
    )
    assert load_with(tmp_path).ignored == ()


def test_what_local_settings_say_besides_values(tmp_path: Path) -> None:
    local = {"Values": {"A": "1"}, "Host": {"LocalHttpPort": 7123, "CORS": "*"}, "ConnectionStrings": {"x": "secret"}}
    settings = load_with(tmp_path, local=local)
    assert (settings.local.port, settings.environment) == (7123, {"A": "1"})
    assert settings.local.ignored == ("Host.CORS", "ConnectionStrings")
    assert "secret" not in repr(settings.local)
    with pytest.raises(SettingsInvalid, match="LocalHttpPort is 70000"):
        load_with(tmp_path, local={"Host": {"LocalHttpPort": 70000}})


def test_the_environment_goes_over_the_values_of_local_settings(tmp_path: Path) -> None:
    local = {"Values": {"A": "file", "B": "file", "ON": True, "N": 3}}
    environment = load_with(tmp_path, local=local, environment={"B": "real"}).environment
    assert environment == {"A": "file", "B": "real", "ON": "true", "N": "3"}


def test_environment_variables_go_over_host_json_whatever_their_case(tmp_path: Path) -> None:
    environment = {
        "AzureFunctionsJobHost__functiontimeout": "-1",
        "AzureFunctionsJobHost__extensions__durableTask__maxConcurrentActivityFunctions": "7",
    }
    settings = load_with(tmp_path, {"functionTimeout": "00:01:00"}, environment=environment)
    assert settings.function_timeout is None
    assert settings.max_activities == 7


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ([], "not a JSON object"),
        ({"functionTimeout": "soon"}, "functionTimeout is 'soon'"),
        ({"extensions": {"durableTask": {"maxConcurrentActivityFunctions": 0}}}, "maxConcurrentActivityFunctions is 0"),
        ({"extensions": {"queues": {"batchSize": 33}}}, "batchSize is 33 and should be a whole number from 1 to 32"),
        ({"extensions": {"queues": {"visibilityTimeout": 30}}}, "visibilityTimeout is 30"),
        ({"extensions": {"queues": {"messageEncoding": "rot13"}}}, "messageEncoding is 'rot13'"),
        ({"extensions": []}, "extensions is not an object"),
    ],
)
def test_a_mistake_in_host_json_is_named_with_its_file(tmp_path: Path, host: Any, complaint: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"host\.json") as caught:
        load_with(tmp_path, host)
    assert complaint in str(caught.value)


def test_a_folder_without_host_json_is_no_app(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="no function app"):
        load(tmp_path, {})


def test_broken_json_and_encrypted_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"local\.settings\.json: it is encrypted"):
        load_with(tmp_path, local={"IsEncrypted": True})
    (tmp_path / "local.settings.json").write_text("{")
    with pytest.raises(SettingsInvalid, match="cannot be read as JSON"):
        load(tmp_path, {})


def test_a_missing_setting_is_named_with_who_wants_it(tmp_path: Path) -> None:
    settings = load_with(tmp_path, environment={"A": "1"})
    assert settings.resolve("x %A% y", wanted_by="f") == "x 1 y"
    with pytest.raises(SettingMissing, match="f needs the setting B"):
        settings.resolve("%B%", wanted_by="f")


def test_functions_can_be_disabled(tmp_path: Path) -> None:
    environment = {"AzureWebJobs.one.Disabled": "true", "AzureWebJobs_two_Disabled": "1"}
    settings = load_with(tmp_path, environment=environment)
    assert [settings.is_disabled(name) for name in ("one", "two", "three")] == [True, True, False]


def test_secrets_do_not_show(tmp_path: Path) -> None:
    assert "hidden" not in repr(load_with(tmp_path, environment={"KEY": "hidden"}))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:05:00", 300),
        ("1.12:00:00", 129600),
        ("10:00", 36000),
        ("00:00:00.5", 0.5),
        ("0 * * * *", None),
        ("-1", None),
        ("00:61:00", None),
    ],
)
def test_time_spans(text: str, seconds: float | None) -> None:
    assert parse_time_span(text) == seconds


def test_a_worker_has_a_thread_for_all_that_the_engine_may_give_it(tmp_path: Path) -> None:
    durable = {"maxConcurrentOrchestratorFunctions": 3, "maxConcurrentActivityFunctions": 2}
    settings = load_with(tmp_path, {"extensions": {"durableTask": durable}}, environment={"A": "1"})
    environment = worker_environment(settings, "127.0.0.1:7071")
    assert environment["PYTHON_THREADPOOL_THREAD_COUNT"] == str(HTTP_THREADS + 5)
    assert environment["A"] == "1"
    own = load_with(tmp_path, environment={"PYTHON_THREADPOOL_THREAD_COUNT": "4"})
    assert worker_environment(own, "x")["PYTHON_THREADPOOL_THREAD_COUNT"] == "4"


def test_a_worker_can_tell_how_many_there_are(tmp_path: Path) -> None:
    said_before = load_with(tmp_path, environment={"FUNCTIONS_WORKER_PROCESS_COUNT": "7"})
    assert worker_environment(said_before, "x", 3)["FUNCTIONS_WORKER_PROCESS_COUNT"] == "3"
