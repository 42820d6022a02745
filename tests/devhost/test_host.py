"""The host from outside: as a process, as its users start it, and within a test where that says more."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devhost.errors import AddressUnavailable, BindingUnsupported, IndexingFailed, StateDirectoryInUse, StateUnusable
from devhost.host import Host, HostOptions
from devhost.protocol import Datum, FunctionInfo, HubOptions, Invocation, Invoker
from devhost.serving import function_table
from tests.devhost import sample_app
from tests.devhost.waiting import eventually, is_running, until

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
READY = "Host ready on "

DURABLE_APP = """
import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="client")
@app.durable_client_input(client_name="client")
async def show_client(req: func.HttpRequest, client: str) -> func.HttpResponse:
    return func.HttpResponse(client._orchestration_bindings.rpc_base_url)


@app.activity_trigger(input_name="word")
def shout(word: str) -> str:
    return word.upper()


@app.orchestration_trigger(context_name="context")
def talk(context: df.DurableOrchestrationContext):
    return (yield context.call_activity("shout", "hi"))
"""


class FakeEngine:
    """Notes what the host does with it, and answers every request with what it was."""

    def __init__(self, options: HubOptions, invoker: Invoker, functions: Sequence[FunctionInfo]) -> None:
        self.options = options
        self.invoker = invoker
        self.functions = {function.name: function for function in functions}
        self.life: list[str] = []
        self.requests: list[tuple[Any, ...]] = []

    async def start(self) -> None:
        self.life.append("start")

    async def stop(self) -> None:
        self.life.append("stop")

    def client_binding(self) -> Datum:
        urls = f'{{"id": "INSTANCEID", "statusQueryGetUri": "{self.options.webhook_base}/instances/INSTANCEID"}}'
        creation = f'{{"createNewInstancePostUri": "{self.options.webhook_base}/orchestrators/x"}}'
        fields = f'"taskHubName": "{self.options.name}", "creationUrls": {creation}, "managementUrls": {urls}'
        return ("string", f'{{{fields}, "rpcBaseUrl": "{self.options.rpc_base}", "requiredQueryStringParameters": ""}}')

    async def handle(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        base: str | None = None,
    ) -> tuple[int, Mapping[str, str], bytes | None]:
        self.requests.append((method, path, dict(query), headers.get("x-test"), body, base))
        return 202, {"Location": "somewhere"}, b'{"id": "1"}'


@contextlib.asynccontextmanager
async def hosting(host: Host) -> AsyncIterator[aiohttp.ClientSession]:
    await host.start()
    try:
        async with aiohttp.ClientSession(host.url) as client:
            yield client
    finally:
        await host.stop()


def options(folder: Path, app_dir: Path, **changes: Any) -> HostOptions:
    return HostOptions(**{"app_dir": app_dir, "state_dir": folder / "state", "port": 0, **changes})


async def test_every_kind_of_trigger(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path, extensions={"http": {"routePrefix": ""}})
    host = Host(options(tmp_path, app_dir, workers=2))
    async with hosting(host) as client:
        async with client.get("/hello/bob?a=1&b=") as response:
            assert (response.status, await response.text()) == (200, "hello bob {'a': '1'}")
        async with client.post("/echo", data=io.BytesIO(b"\0" * 3_000_000)) as response:
            assert (response.status, await response.read()) == (201, b"\0" * 3_000_000)
        packed = gzip.compress(b"x" * 1000)
        async with client.post("/echo", data=packed, headers={"Content-Encoding": "gzip"}) as response:
            assert await response.read() == packed, "as it came"
        async with client.get("/fail") as response:
            assert response.status == 500
        for method, path in (("POST", "/hello/bob"), ("GET", "/hello/b0b"), ("GET", "/nowhere"), ("GET", "/api/echo")):
            async with client.request(method, path) as response:
                assert response.status == 404
        async with client.get("/") as response:
            assert response.status == 200
        events = [{"id": "e1", "data": {}}, {"specversion": "1.0", "id": "e2", "type": "t", "source": "s"}]
        webhook = "/runtime/webhooks/EventGrid?functionName=on_event"
        async with client.post(webhook, json=events, headers={"aeg-event-type": "Notification"}) as response:
            assert response.status == 202
        assert sorted(sample_app.notes(tmp_path, "events")) == ["e1", "e2"]
        assert len(sample_app.notes(tmp_path, "warm")) == 2


async def test_the_admin_side(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path)
    async with hosting(Host(options(tmp_path, app_dir, workers=2))) as client:
        async with client.get("/admin/host/status") as response:
            assert response.status == 200
            status = await response.json()
        assert status["state"] == "Running"
        assert [worker["state"] for worker in status["workers"]] == ["ready", "ready"]
        assert all(is_running(worker["pid"]) for worker in status["workers"])
        async with client.get("/admin/functions") as response:
            listed = {function["name"]: function for function in await response.json()}
        assert listed["hello"]["invoke_url_template"].endswith("/api/hello/{name:alpha}")
        assert listed["tick"]["config"]["bindings"][0]["type"] == "timerTrigger"
        async with client.post("/admin/functions/TICK", json={}) as response:
            assert response.status == 202
        async with client.post("/admin/functions/on_event", json={"input": '{"id": "by hand"}'}) as response:
            assert response.status == 202
        await until(lambda: sample_app.notes(tmp_path, "ticks") == ["False"])
        await until(lambda: sample_app.notes(tmp_path, "events") == ["by hand"])
        for name, body, answer in (("hello", "{}", 400), ("nobody", "{}", 404), ("tick", "{", 400)):
            async with client.post(f"/admin/functions/{name}", data=body) as response:
                assert response.status == answer


async def test_a_killed_worker_is_replaced_and_the_status_says_when(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path)
    async with hosting(Host(options(tmp_path, app_dir))) as client:

        async def status() -> tuple[int, list[int]]:
            async with client.get("/admin/host/status") as response:
                return response.status, [worker["pid"] for worker in (await response.json())["workers"]]

        _, (pid,) = await status()
        os.kill(pid, signal.SIGKILL)
        seen = [(200, [pid])]

        async def noticed() -> bool:
            seen.append(await status())
            return seen[-1] != seen[0]

        await eventually(noticed)
        assert seen[-1][0] == 503
        async with client.get("/api/hello/bob") as response:  # waits for the next worker
            assert response.status == 200
        code, (other,) = await status()
        assert code == 200
        assert other != pid


async def test_the_durable_engine_is_hosted(tmp_path: Path) -> None:
    durable = {"hubName": "Hub1", "maxConcurrentOrchestratorFunctions": 3, "maxConcurrentActivityFunctions": 2}
    app_dir = sample_app.write(tmp_path, DURABLE_APP, extensions={"durableTask": durable})
    engines: list[FakeEngine] = []

    def factory(options: HubOptions, invoker: Invoker, functions: Sequence[FunctionInfo]) -> FakeEngine:
        engines.append(FakeEngine(options, invoker, functions))
        return engines[0]

    host = Host(options(tmp_path, app_dir, workers=2), engine=factory)
    async with hosting(host) as client:
        (engine,) = engines
        assert engine.life == ["start"]
        assert (engine.options.name, engine.options.max_orchestrators, engine.options.max_activities) == ("Hub1", 3, 2)
        assert engine.options.database.parent == tmp_path / "state"
        activity = Invocation(engine.functions["shout"].id, [("word", ("string", '"hi"'))], redispatch=True)
        outcome = await engine.invoker.invoke(activity)
        assert outcome.value == ("json", '"HI"')
        async with client.get("/api/client") as response:
            assert await response.text() == engine.options.rpc_base
        management = f"{host.url}/runtime/webhooks/durabletask"
        assert engine.options.webhook_base == management
        async with client.post(f"{management}/instances/a%2Fb/terminate?reason=no+way&code=", data=b"x") as response:
            assert response.status == 202
            assert response.headers["Location"] == "somewhere"
            assert await response.json() == {"id": "1"}
        async with client.get(f"{engine.options.rpc_base}instances/", headers={"X-Test": "1"}) as response:
            assert response.status == 202
        assert engine.requests == [
            ("POST", "instances/a%2Fb/terminate", {"reason": "no way", "code": ""}, None, b"x", management),
            ("GET", "instances", {}, "1", b"", None),
        ]
    assert engine.life == ["start", "stop"]


async def test_an_app_without_durable_functions_has_no_engine(tmp_path: Path) -> None:
    def factory(*_: object) -> FakeEngine:
        raise AssertionError("no engine is wanted")

    host = Host(options(tmp_path, sample_app.write(tmp_path)), engine=factory)
    async with hosting(host) as client, client.get("/runtime/webhooks/durabletask/instances") as response:
        assert response.status == 404


async def test_the_body_limit_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", "10")
    async with hosting(Host(options(tmp_path, sample_app.write(tmp_path)))) as client:
        async with client.post("/api/echo", data=b"x" * 10) as response:
            assert response.status == 201
        async with client.post("/api/echo", data=b"x" * 11) as response:
            assert response.status == 413


@pytest.mark.parametrize("state", ["a file", "in a file", "not a database"])
async def test_state_that_cannot_be_used_is_told(tmp_path: Path, state: str) -> None:
    app_dir = sample_app.write(tmp_path, DURABLE_APP)
    there = tmp_path / "there"
    if state == "not a database":
        there.mkdir()
        (there / "durable.sqlite3").write_text("this is a letter, not a database")
    else:
        there.write_text("")
    folder = there / "inside" if state == "in a file" else there
    with pytest.raises(StateUnusable, match=f"the state directory {folder} cannot be used"):
        await Host(options(tmp_path, app_dir, state_dir=folder)).start()


async def test_a_host_that_does_not_exist_is_told(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path)
    with pytest.raises(AddressUnavailable, match=r"nowhere.invalid:0 \(.*[nN]ame"):
        await Host(options(tmp_path, app_dir, host="nowhere.invalid")).start()


async def test_an_app_without_functions_is_told(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path)
    (app_dir / "function_app.py").unlink()
    host = Host(options(tmp_path, app_dir))
    async with hosting(host):
        assert "No functions were found" in function_table(host)


async def test_what_keeps_a_host_from_starting(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path)
    first = Host(options(tmp_path, app_dir))
    async with hosting(first):
        with pytest.raises(StateDirectoryInUse, match=rf"another devhost \(pid {os.getpid()}\) uses this state"):
            await Host(options(tmp_path, app_dir)).start()
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(AddressUnavailable, match=f"127.0.0.1:{port}.*in use"):
            await Host(options(tmp_path, app_dir, state_dir=tmp_path / "other", port=port)).start()
    async with hosting(Host(options(tmp_path, app_dir))):  # all is free again
        pass
    (app_dir / "function_app.py").write_text("raise RuntimeError('broken')")
    with pytest.raises(IndexingFailed, match="RuntimeError: broken"):
        await Host(options(tmp_path, app_dir)).start()
    (app_dir / "function_app.py").write_text(
        "import azure.functions as func\n"
        "app = func.FunctionApp()\n"
        "@app.service_bus_queue_trigger(arg_name='message', queue_name='q', connection='c')\n"
        "def on_message(message: func.ServiceBusMessage) -> None: ...\n"
    )
    with pytest.raises(
        BindingUnsupported, match="Function on_message: the binding 'message' is of type serviceBusTrigger"
    ):
        await Host(options(tmp_path, app_dir)).start()


class HostProcess:
    """`python -m devhost start`, and what it has written."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, output: str) -> None:
        self.process = process
        self.url = url
        self.output = output

    async def worker_pids(self) -> list[int]:
        async with aiohttp.ClientSession() as client, client.get(f"{self.url}/admin/host/status") as response:
            return [worker["pid"] for worker in (await response.json())["workers"]]


@contextlib.asynccontextmanager
async def host_process(folder: Path, app_dir: Path) -> AsyncIterator[HostProcess]:
    arguments = ["--app", str(app_dir), "--port", "0", "--workers", "2", "--state", str(folder / "state")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devhost", "start", *arguments),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        output = ""
        async with asyncio.timeout(15):
            while READY not in output:
                line = await process.stdout.readline()
                assert line, f"the host ended early: {output}"
                output += line.decode()
        yield HostProcess(process, output.rpartition(READY)[2].strip(), output)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_start_shows_functions_and_urls_and_a_stop_drains(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path)
    async with host_process(tmp_path, app_dir) as host, aiohttp.ClientSession() as client:
        table = {line.split()[0]: line.split()[1:] for line in host.output.splitlines() if line.startswith("\t")}
        assert table["hello:"] == ["[GET]", f"{host.url}/api/hello/{{name:alpha}}"]
        assert table["tick:"] == ["timerTrigger"]
        pids = await host.worker_pids()
        waiting = asyncio.create_task(client.get(f"{host.url}/api/wait"))
        await until(lambda: sample_app.notes(tmp_path, "waiting") != [])
        host.process.send_signal(signal.SIGTERM)
        port = int(host.url.rpartition(":")[2])
        await until(lambda: not listens(port))
        (tmp_path / "notes" / "released").touch()
        async with await waiting as response:
            assert (response.status, await response.text()) == (200, "waited")
        assert await asyncio.wait_for(host.process.wait(), 10) == 0
        assert not any(is_running(pid) for pid in pids)


async def test_a_killed_host_leaves_no_worker_not_even_a_busy_one(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path)
    async with host_process(tmp_path, app_dir) as host, aiohttp.ClientSession() as client:
        pids = await host.worker_pids()
        busy = asyncio.create_task(client.get(f"{host.url}/api/busy"))
        await until(lambda: sample_app.notes(tmp_path, "busy") != [])
        assert int(sample_app.notes(tmp_path, "busy")[0]) in pids
        host.process.kill()
        await host.process.wait()
        await until(lambda: not any(is_running(pid) for pid in pids), limit=2)
        with pytest.raises(aiohttp.ClientError):
            await busy


async def test_a_host_that_is_asked_to_stop_while_it_starts_stops(tmp_path: Path) -> None:
    source = "import os, time\nopen(os.environ['NOTES'] + '/pid', 'a').write(f'{os.getpid()}\\n')\ntime.sleep(600)\n"
    app_dir = sample_app.write(tmp_path, source)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devhost", "start", "--app", str(app_dir), "--port", "0"), cwd=REPOSITORY
    )
    await until(lambda: len(sample_app.notes(tmp_path, "pid")) == 1)
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 5) == 0
    assert not is_running(int(sample_app.notes(tmp_path, "pid")[0]))


async def test_a_host_that_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devhost", "start", "--app", str(tmp_path), "--port", "0"),
        cwd=REPOSITORY,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().startswith(f"devhost: {tmp_path}/host.json: there is no such file")
    assert errors.count(b"\n") == 1


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
