"""Queue triggers and outputs, against Azurite's queues."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from devhost.azurite import AzuritePorts, azurite_part
from devhost.caller import Caller
from devhost.errors import BindingInvalid, ConnectionInvalid
from devhost.host import Host, HostOptions
from devhost.outputs import WithOutputs, messages
from devhost.ports import free_ports
from devhost.protocol import Invocation, Outcome
from devhost.queue_client import Queue, decode, encode
from devhost.queues import QueueTriggers
from devhost.settings import QueueSettings, Settings
from devhost.storage import Account, Answer, Storage, StorageRefused
from devhost.supervisor import Supervisor
from tests.devhost import sample_app
from tests.devhost.fakes import DONE, FakeInvoker, function, settings
from tests.devhost.waiting import eventually, until

FAILED = Outcome(ok=False, error="ValueError: as expected")
FAST = QueueSettings(max_polling_interval=0.1, max_dequeue_count=2)

APP = """
import json
import os
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="send", methods=["POST"])
@app.queue_output(arg_name="orders", queue_name="%ORDERS%", connection="STORE")
def send(req: func.HttpRequest, orders: func.Out[str]) -> func.HttpResponse:
    orders.set(req.get_body().decode())
    return func.HttpResponse("sent", status_code=202)


@app.queue_trigger(arg_name="message", queue_name="%ORDERS%", connection="STORE")
@app.queue_output(arg_name="$return", queue_name="%ORDERS%-done", connection="STORE")
def work_off(message: func.QueueMessage) -> str:
    text = message.get_body().decode()
    if text == "bad":
        raise ValueError("as expected")
    times = (message.insertion_time, message.time_next_visible, message.expiration_time)
    with (Path(os.environ["NOTES"]) / "orders").open("a") as file:
        file.write(f"{text} {message.dequeue_count} {bool(message.id and message.pop_receipt and all(times))}\\n")
    return text.upper()
"""


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("azurite")
    ports = AzuritePorts(*free_ports(3))
    with Supervisor(folder / "logs") as supervisor:
        supervisor.start(azurite_part(folder / "data", ports))
        yield ports.connection_string


def configured(connection: str, queues: QueueSettings = FAST) -> Settings:
    plain = settings({"STORE": connection, "NAME": "orders"})
    return Settings(**{name: getattr(plain, name) for name in plain.__slots__} | {"queues": queues})


@contextlib.asynccontextmanager
async def queue_of(connection: str, name: str) -> AsyncIterator[Queue]:
    storage = Storage(settings())
    try:
        yield Queue(storage, Account.parse(connection), name)
    finally:
        await storage.close()


async def taken(queue: Queue, count: int, limit: float = 15.0) -> list[str]:
    """The texts of the next `count` messages, which are deleted."""
    found: list[str] = []

    async def enough() -> bool:
        for message in await queue.receive(32, 60):
            found.append(message.text)
            await queue.delete(message, message.receipt)
        return len(found) >= count

    await eventually(enough, limit)
    return found


@contextlib.asynccontextmanager
async def triggers(
    connection: str, name: str, invoker: FakeInvoker, queues: QueueSettings = FAST
) -> AsyncIterator[Queue]:
    """The queue `name`, with a function on it."""
    own = configured(connection, queues)
    storage, caller = Storage(own), Caller(invoker)
    on_message = function("on_message", "queueTrigger", queueName=name, connection="STORE")
    running = QueueTriggers([on_message], caller, own, storage)
    running.start()
    try:
        async with queue_of(connection, name) as queue:
            yield queue
    finally:
        await running.stop()
        await caller.drain(1)
        await storage.close()


@pytest.mark.integration
async def test_a_message_is_received_hidden_and_deleted(connection: str) -> None:
    async with queue_of(connection, "plain") as queue:
        assert list(await queue.receive(1, 60)) == []  # there is no such queue
        await queue.put("<a> & 'é'\n")
        (message,) = await queue.receive(32, 60)
        assert (message.text, message.dequeue_count) == ("<a> & 'é'\n", 1)
        assert message.inserted < message.next_visible < message.expires
        assert list(await queue.receive(32, 60)) == []
        receipt = await queue.hide(message, message.receipt, 60)
        receipt = await queue.hide(message, receipt, 0)
        (again,) = await queue.receive(32, 60)
        assert (again.text, again.dequeue_count) == (message.text, 2)
        await queue.delete(again, again.receipt)


@pytest.mark.integration
async def test_messages_are_worked_off_and_gone(connection: str) -> None:
    invoker = FakeInvoker()
    async with triggers(connection, "worked-off", invoker) as queue:
        for text in ("one", "two"):
            await queue.put(encode(text, base64_text=True))
        await queue.put(encode(b"\xff\x00", base64_text=True))
        await until(lambda: len(invoker.invocations) == 3)
    inputs = sorted(invocation.inputs[0][1] for invocation in invoker.invocations)
    assert inputs == [("bytes", b"\xff\x00"), ("string", "one"), ("string", "two")]
    assert {invocation.metadata["DequeueCount"] for invocation in invoker.invocations} == {("int", 1)}
    async with queue_of(connection, "worked-off") as queue:
        for message in await queue.receive(32, 1):
            raise AssertionError(message)


@pytest.mark.integration
async def test_a_message_that_fails_again_and_again_moves_to_the_poison_queue(connection: str) -> None:
    invoker = FakeInvoker(lambda _: FAILED)
    async with triggers(connection, "failing", invoker) as queue:
        await queue.put(encode("bad", base64_text=True))
        assert await taken(queue.beside("failing-poison"), 1) == [encode("bad", base64_text=True)]
    assert [invocation.metadata["DequeueCount"] for invocation in invoker.invocations] == [("int", 1), ("int", 2)]


@pytest.mark.integration
async def test_a_message_that_cannot_be_decoded_moves_without_a_call(connection: str) -> None:
    invoker = FakeInvoker()
    async with triggers(connection, "undecodable", invoker) as queue:
        await queue.put("not base64!")
        assert await taken(queue.beside("undecodable-poison"), 1) == ["not base64!"]
    assert invoker.invocations == []


@pytest.mark.integration
async def test_no_more_messages_are_fetched_than_the_batch_and_the_threshold_allow(connection: str) -> None:
    released = asyncio.Event()

    class SlowInvoker(FakeInvoker):
        async def invoke(self, invocation: Invocation) -> Outcome:
            self.invocations.append(invocation)
            await released.wait()
            return DONE

    invoker = SlowInvoker()
    few = QueueSettings(batch_size=2, new_batch_threshold=0, max_polling_interval=0.1)
    async with triggers(connection, "slow", invoker, few) as queue:
        for text in ("1", "2", "3"):
            await queue.put(encode(text, base64_text=True))
        await until(lambda: len(invoker.invocations) == 2)
        (third,) = await queue.receive(32, 1)  # still there for others
        await queue.hide(third, third.receipt, 0)
        released.set()
        await until(lambda: len(invoker.invocations) == 3)


@pytest.mark.integration
async def test_a_call_that_the_stop_cuts_short_leaves_its_message_to_others(connection: str) -> None:
    class Stuck(FakeInvoker):
        async def invoke(self, invocation: Invocation) -> Outcome:
            self.invocations.append(invocation)
            await asyncio.Event().wait()
            return DONE

    invoker = Stuck()
    async with triggers(connection, "stuck", invoker) as queue:
        await queue.put(encode("x", base64_text=True))
        await until(lambda: len(invoker.invocations) == 1)
    async with queue_of(connection, "stuck") as queue:
        assert await taken(queue, 1, limit=5) == [encode("x", base64_text=True)]


@pytest.mark.integration
async def test_an_app_with_queues(connection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", connection)
    monkeypatch.setenv("ORDERS", "orders")
    fast = {"maxPollingInterval": "00:00:00.1", "maxDequeueCount": 2}
    app_dir = sample_app.write(tmp_path, APP, extensions={"queues": fast})
    host = Host(HostOptions(app_dir=app_dir, state_dir=tmp_path / "state", port=0))
    await host.start()
    try:
        async with aiohttp.ClientSession(host.url) as client, queue_of(connection, "orders-done") as done:
            for body in ("tea", '["milk", {"n": 1}]', "bad"):
                async with client.post("/api/send", data=body) as response:
                    assert (response.status, await response.text()) == (202, "sent")
            texts = [base64.b64decode(text).decode() for text in await taken(done, 3)]
            assert sorted(texts) == ["MILK", "TEA", '{"N": 1}']
            assert await taken(done.beside("orders-poison"), 1) == [encode("bad", base64_text=True)]
            async with client.post("/admin/functions/work_off", json={"input": "by hand"}) as response:
                assert response.status == 202
            assert await taken(done, 1) == [encode("BY HAND", base64_text=True)]
    finally:
        await host.stop()
    notes = sample_app.notes(tmp_path, "orders")
    assert sorted(notes) == ["by hand 1 False", "milk 1 True", "tea 1 True", '{"n": 1} 1 True']


@pytest.mark.integration
class AwayAtFirst(Storage):
    """Storage that does not answer the first requests, and then has no queue."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.requests = 0

    async def request(
        self,
        account: Account,
        method: str,
        url: URL,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        self.requests += 1
        if self.requests <= 3:
            raise aiohttp.ClientConnectionError("nobody there")
        raise StorageRefused(404, "QueueNotFound")


async def test_storage_that_is_away_for_a_while_is_told_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    configuration = configured("UseDevelopmentStorage=true")
    storage = AwayAtFirst(configuration)
    listening = function("work_off", "queueTrigger", queueName="orders", connection="STORE")
    triggers = QueueTriggers([listening], Caller(FakeInvoker()), configuration, storage)
    triggers.start()
    await until(lambda: storage.requests > 4)
    await triggers.stop()
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "the queue orders cannot be read for now",
        "the queue orders can be read again",
    ]


async def test_an_output_that_cannot_be_written_fails_the_invocation() -> None:
    (port,) = free_ports(1)
    key = base64.b64encode(b"x").decode()
    own = configured(f"AccountName=a;AccountKey={key};QueueEndpoint=http://127.0.0.1:{port}/a")
    returned = {"type": "queue", "name": "$return", "direction": "OUT", "queueName": "q", "connection": "STORE"}
    ticking = function("tick", "timerTrigger", returned)
    storage = Storage(own)
    invoker = FakeInvoker(lambda _: Outcome(ok=True, value=("string", "x")))
    try:
        outcome = await WithOutputs(invoker, [ticking], own, storage).invoke(Invocation(ticking.id, []))
    finally:
        await storage.close()
    assert not outcome.ok
    assert "output to the queue q" in outcome.error


def test_a_queue_binding_that_cannot_be_is_named() -> None:
    own = configured("AccountName=a")
    with pytest.raises(ConnectionInvalid, match="The queue trigger of function f needs a connection string in the"):
        QueueTriggers(
            [function("f", "queueTrigger", queueName="q", connection="STORE")], Caller(FakeInvoker()), own, Storage(own)
        )
    own = configured("UseDevelopmentStorage=true")
    output = {"type": "queue", "name": "out", "queueName": "q-{id}", "connection": "STORE"}
    with pytest.raises(BindingInvalid, match=r"The queue output 'out' of function f: its queue name 'q-\{id\}'"):
        WithOutputs(FakeInvoker(), [function("f", "timerTrigger", output)], own, Storage(own))


@pytest.mark.parametrize(
    ("datum", "expected"),
    [
        (("string", "text"), ["text"]),
        (("bytes", b"\xff"), [b"\xff"]),
        (("string", '["a", {"b": 1}]'), ["a", '{"b": 1}']),
        (("string", "[not json"), ["[not json"]),
        (("json", '{"id": null, "body": "x"}'), ['{"id": null, "body": "x"}']),
        (("json", "[]"), []),
    ],
)
def test_the_messages_of_an_output(datum: tuple[str, object], expected: list[bytes | str]) -> None:
    assert messages(datum) == expected


def test_encodings() -> None:
    for content in (b"a", b"\xff", "é".encode()):
        assert decode(encode(content, base64_text=True), base64_text=True) == content
    assert encode("é", base64_text=False) == "é"
    assert decode("é", base64_text=False) == "é".encode()
    with pytest.raises(ValueError, match="not base64"):
        decode("é", base64_text=True)
    assert json.loads(decode(encode('{"a": 1}', base64_text=True), base64_text=True)) == {"a": 1}
