"""Access keys: who may call what."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from devhost.auth import Keys
from devhost.errors import KeysInvalid
from devhost.host import Host, HostOptions
from tests.devhost import sample_app
from tests.devhost.fakes import function

KEYS = {
    "master": "m/+ =",
    "host": {"default": "h"},
    "functions": {"Guarded": {"default": "f1", "other": "f2"}, "elsewhere": {"default": "e"}},
    "system": {"eventgrid_extension": "g", "durabletask_extension": "d&1"},
}

APP = """
import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.route(route="open", auth_level=func.AuthLevel.ANONYMOUS)
@app.durable_client_input(client_name="client")
async def open_to_all(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    instance = await client.start_new("talk")
    return client.create_check_status_response(req, instance)


@app.route(route="guarded")
def guarded(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("in")


@app.event_grid_trigger(arg_name="event")
def on_event(event: func.EventGridEvent) -> None: ...


@app.orchestration_trigger(context_name="context")
def talk(context: df.DurableOrchestrationContext):
    yield context.wait_for_external_event("end")
"""


def written(folder: Path, content: Any) -> Path:
    path = folder / "keys.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("level", "opened_by"),
    [
        ("ANONYMOUS", {"", "wrong", "e", "f1", "f2", "h", "m/+ =", "g"}),
        ("FUNCTION", {"f1", "f2", "h", "m/+ ="}),
        (None, {"f1", "f2", "h", "m/+ ="}),
        ("admin", {"m/+ ="}),
    ],
)
def test_what_opens_a_function(tmp_path: Path, level: str | None, opened_by: set[str]) -> None:
    keys = Keys.load(written(tmp_path, KEYS))
    guarded = function("guarded", "httpTrigger", authLevel=level)
    tried = ("", "wrong", "e", "f1", "f2", "h", "m/+ =", "g")
    requests = {key: make_mocked_request("GET", "/", {"X-Functions-Key": key}) for key in tried}
    assert {key for key, request in requests.items() if keys.allows_function(request, guarded)} == opened_by


def test_what_opens_a_webhook(tmp_path: Path) -> None:
    keys = Keys.load(written(tmp_path, KEYS))
    answers = {
        code: keys.allows_system(make_mocked_request("GET", f"/?code={code}"), "eventgrid_extension")
        for code in ("g", "m%2F%2B%20%3D", "d%261", "h", "")
    }
    assert answers == {"g": True, "m%2F%2B%20%3D": True, "d%261": False, "h": False, "": False}
    assert not keys.allows_system(make_mocked_request("GET", "/?code=g"), "unknown")


def test_keys_are_made_for_their_owner_alone_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = Keys.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len({keys.master, *keys.host, *keys.system.values()}) == 5
    assert Keys.load(path) == keys
    assert keys.master not in repr(keys)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"master": ""},
        {"master": 1},
        {"master": "m", "host": ["h"]},
        {"master": "m", "functions": {"f": {"default": ""}}},
        {"master": "m", "functions": []},
        {"master": "m", "hosts": {}},
    ],
)
def test_a_mistake_in_the_keys_is_named(tmp_path: Path, content: Any) -> None:
    with pytest.raises(KeysInvalid, match=r"keys\.json: "):
        Keys.load(written(tmp_path, content))


@pytest.mark.integration
async def test_a_host_with_keys(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path, APP)
    keys_file = written(tmp_path, KEYS)
    host = Host(HostOptions(app_dir=app_dir, state_dir=tmp_path / "state", port=0, keys_file=keys_file))
    await host.start()
    try:
        async with aiohttp.ClientSession(host.url) as client:

            async def status(method: str, path: str, key: str = "", **more: Any) -> int:
                async with client.request(method, path, headers={"x-functions-key": key}, **more) as response:
                    return response.status

            assert [await status("GET", "/api/guarded", key) for key in ("", "g", "h", "f2")] == [401, 401, 200, 200]
            assert await status("GET", "/api/guarded?code=f1") == 200
            assert await status("GET", "/api/nowhere") == 404
            assert [await status("GET", path) for path in ("/", "/admin/host/ping")] == [200, 200]
            for path in ("/admin/host/status", "/admin/functions", "/admin/functions/guarded"):
                assert [await status("GET", path, key) for key in ("", "h", "m/+ =")] == [401, 401, 200]
            webhook = "/runtime/webhooks/EventGrid?functionName=on_event"
            event: dict[str, Any] = {"json": [{"id": "1", "data": {}}]}
            assert await status("POST", webhook, **event) == 401
            assert await status("POST", f"{webhook}&code=g", **event) == 400  # in, but not said to be a notification
            async with client.post("/api/open") as response:
                assert response.status == 202
                links = await response.json()
            link = links["statusQueryGetUri"]
            assert await status("GET", link) == 202
            assert await status("GET", link.partition("?")[0]) == 401
            assert await status("GET", link.partition("?")[0], "g") == 401
            assert await status("POST", links["sendEventPostUri"].replace("{eventName}", "end"), json=1) == 202
    finally:
        await host.stop()
