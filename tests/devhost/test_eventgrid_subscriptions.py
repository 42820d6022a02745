from __future__ import annotations

import json
import re
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from devhost.eventgrid.cli import configuration, main, parser
from devhost.eventgrid.errors import BadSubscription
from devhost.eventgrid.faults import KINDS, Faults, parse_faults
from devhost.eventgrid.subscriptions import Subscription, check_names, load_subscriptions

URL = "http://127.0.0.1:7071/hook"
CREATED = "Microsoft.Storage.BlobCreated"
SUBJECT = "/blobServices/default/containers/training/blobs/Flights/a.csv"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, True),
        ({"begins_with": "/blobServices/default/containers/training/"}, True),
        ({"begins_with": "/blobServices/default/containers/train/"}, False),
        ({"begins_with": "/blobservices/DEFAULT/"}, True),
        ({"begins_with": "/blobservices/DEFAULT/", "case_sensitive": True}, False),
        ({"ends_with": ".CSV"}, True),
        ({"ends_with": ".parquet"}, False),
        ({"event_types": (CREATED, "Other")}, True),
        ({"event_types": ("Microsoft.Storage.BlobDeleted",)}, False),
        ({"source": "topics/storage"}, False),
    ],
)
def test_filters(fields: dict[str, Any], wanted: bool) -> None:
    subscription = Subscription("s", URL, **fields)
    assert subscription.wants(source="storage", event_type=CREATED, subject=SUBJECT) is wanted


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ({"endpoint": URL}, "'name' is missing"),
        ({"name": "s"}, "'endpoint' is missing"),
        ({"name": "s", "endpoint": "https://example.com/"}, "not an http URL on this machine"),
        ({"name": "s", "endpoint": "http://127.0.0.1.example.com/"}, "not an http URL on this machine"),
        ({"name": "a b", "endpoint": URL}, "letters, digits"),
        ({"name": "s", "endpoint": URL, "begins": "x"}, "there is no field 'begins'"),
        ({"name": "s", "endpoint": URL, "maxDeliveryAttempts": True}, "has to be a int"),
        ({"name": "s", "endpoint": URL, "maxDeliveryAttempts": 0}, "at least 1"),
        ({"name": "s", "endpoint": URL, "source": "queue"}, "neither storage nor topics/NAME"),
        ({"name": "s", "endpoint": URL, "eventDeliverySchema": "CustomInputSchema"}, "neither EventGridSchema nor"),
        ("s", "not a JSON object"),
    ],
)
def test_a_mistake_in_a_subscription_is_named(tmp_path: Path, item: object, problem: str) -> None:
    file = tmp_path / "subscriptions.json"
    file.write_text(json.dumps([item]))
    with pytest.raises(BadSubscription, match=problem):
        load_subscriptions(file)


@pytest.mark.parametrize("text", ["[", "3", '{"subscription": []}'])
def test_a_file_of_another_kind_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "subscriptions.json"
    file.write_text(text)
    with pytest.raises(BadSubscription, match=str(file)):
        load_subscriptions(file)


def test_a_file_is_read_with_azures_names(tmp_path: Path) -> None:
    item = {"name": "s", "endpoint": URL, "includedEventTypes": [CREATED], "subjectEndsWith": ".csv"}
    file = tmp_path / "subscriptions.json"
    file.write_text(json.dumps({"subscriptions": [item | {"eventTimeToLiveInMinutes": 5}]}))
    expected = Subscription("s", URL, event_types=(CREATED,), ends_with=".csv", ttl_minutes=5)
    assert load_subscriptions(file) == [expected]


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(BadSubscription, match="two of that name"):
        check_names([Subscription("s", URL), Subscription("s", URL)])


def test_the_command_line_aims_at_a_function_of_a_host_on_7071(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AzureWebJobsStorage", raising=False)
    arguments = [
        "--azurite-log",
        "a.log",
        "--function",
        "on_upload",
        "--subject-begins-with",
        "/x/",
        "--event-type",
        "T",
    ]
    result = configuration(parser().parse_args(arguments))
    endpoint = "http://127.0.0.1:7071/runtime/webhooks/EventGrid?functionName=on_upload"
    assert result.subscriptions == (Subscription("on_upload", endpoint, event_types=("T",), begins_with="/x/"),)
    assert "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;" in result.connection_string


def test_a_taken_port_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert main(["--port", str(port), "--state", str(tmp_path)]) == 1
    assert f"Port {port} (asked for by the local Event Grid, --port) is in use" in capsys.readouterr().err


def test_a_spoilt_state_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "eventgrid.sqlite").write_text("this is a letter, not a database")
    assert main(["--port", "0", "--state", str(tmp_path)]) == 1
    assert f"The state in {tmp_path} cannot be used (file is not a database)" in capsys.readouterr().err


def test_blob_events_need_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--function", "on_upload"]) == 2
    assert "--azurite-log FILE is needed" in capsys.readouterr().err


def shown_help(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_help_names_every_option_and_what_it_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    shown = shown_help(capsys)
    for word in ("--azurite-log", "func start", "7071", "deadletter.jsonl", "AzureKeyCredential", "/ready", "--seed"):
        assert word in shown
    for kind in KINDS:
        assert f"--fault {kind}=" in shown


def test_the_examples_of_the_help_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = shown_help(capsys)
    file = tmp_path / "subscriptions.json"
    file.write_text(shown[shown.index("[{") : shown.index("}]") + 2])
    assert [subscription.name for subscription in load_subscriptions(file)] == ["uploads", "audit"]
    faults = re.findall(r"^  --fault ([a-z]\S+)", shown, re.MULTILINE)
    assert str(parse_faults(faults, seed=7)) == "duplicate 0.2, delay 0.5 by 3 s, reorder 0.1, drop 0.05"
    command = re.search(r"^  python -m devhost eventgrid (.*?)\n\n", shown, re.DOTALL | re.MULTILINE)
    assert command is not None
    result = configuration(parser().parse_args(shlex.split(command[1].replace("\\\n", ""))))
    assert [subscription.name for subscription in result.subscriptions] == ["on_upload"]


def test_faults_come_from_the_command_line() -> None:
    arguments = ["--fault", "duplicate=0.2", "--fault", "delay=0.5:3s", "--seed", "7"]
    result = configuration(parser().parse_args(arguments))
    assert result.faults == Faults(seed=7, duplicate=0.2, delay=0.5, delay_seconds=3.0)
