"""Whatever arrives on the host's port: it is answered or dropped, and the next good request gets its answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.devhost import chaos_app

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
READY = re.compile(r"Host ready on http://127\.0\.0\.1:(\d+)\n")
BODY_LIMIT = 100_000
PATIENCE_SECONDS = 5.0
"""How long the host may take to answer, or to end a connection whose other half has ended."""
QUIET_SECONDS = 0.1
"""How long to wait for a reply to what may be half a request only."""
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
MANAGEMENT = b"/runtime/webhooks/durabletask"

fuzzing = settings(max_examples=60, deadline=None, derandomize=True)


class Target:
    """A running host, as a socket sees it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self._port = port

    def send(self, data: bytes) -> list[int]:
        """The statuses of all replies to these bytes, after which no more come: our half of the connection ends."""
        received = b""
        with (
            socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECONDS) as line,
            contextlib.suppress(ConnectionError),  # it may have heard enough
        ):
            line.sendall(data)
            line.settimeout(QUIET_SECONDS)
            with contextlib.suppress(TimeoutError):
                received = line.recv(65536)
            line.settimeout(PATIENCE_SECONDS)
            with contextlib.suppress(OSError):  # the host may have ended the whole of it
                line.shutdown(socket.SHUT_WR)
            while piece := line.recv(65536):
                received += piece
        return [int(status) for status in STATUS_LINE.findall(received)]

    def send_and_leave(self, data: bytes) -> None:
        """Sends these bytes and waits for nothing."""
        with socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECONDS) as line:
            line.sendall(data)

    def assert_well(self) -> None:
        """The host runs, and a normal request gets 200, from a function."""
        assert self._process.poll() is None
        status, body = self.request("GET", "/api/alive")
        assert (status, body) == (200, b"alive")

    def request(self, method: str, path: str, body: bytes | Iterator[bytes] | None = None) -> tuple[int, bytes]:
        """A well-formed one."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzz")
    app_dir = chaos_app.write(folder)
    settings_file = app_dir / "local.settings.json"
    content = json.loads(settings_file.read_text())
    content["Values"]["FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"] = str(BODY_LIMIT)
    settings_file.write_text(json.dumps(content))
    with (folder / "host.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "devhost", "start", "--app", str(app_dir), "--port", "0"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        try:
            assert process.stdout is not None
            output = ""
            while READY.search(output) is None:
                line = process.stdout.readline()
                assert line, (folder / "host.log").read_text()
                output += line
            found = READY.search(output)
            assert found is not None
            yield Target(process, int(found[1]))
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()


def refused_or_answered(statuses: list[int]) -> bool:
    """No reply at all, or replies that find no fault with the host itself."""
    return all(status < 500 for status in statuses)


@fuzzing
@given(data=st.binary(max_size=3000))
@example(data=b"\0" * 100_000)
@example(data=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # TLS
@example(data=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
def test_garbage(target: Target, data: bytes) -> None:
    assert refused_or_answered(target.send(data))
    target.assert_well()


TARGETS = st.sampled_from(
    [b"/api/alive", b"", b"*", b"//", b"http://", b"http://h:99999/", b"http://[::1/", b"/api/%", b"/%zz", b"/\xff"]
)


@fuzzing
@given(
    method=st.sampled_from([b"GET", b"get", b"POST", b"CONNECT", b"OPTIONS", b"G\0T", b"", b"G" * 70_000]),
    url=TARGETS | st.binary(max_size=50),
    version=st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/", b"", b"\0"]),
    end=st.sampled_from([b"\r\n\r\n", b"\n\n", b"\r\n", b"\r", b""]),
)
@example(method=b"CONNECT", url=b"h:1", version=b"HTTP/1.1", end=b"\r\n\r\n")
@example(method=b"GET", url=b"http://h:99999/", version=b"HTTP/1.1", end=b"\r\n\r\n")
@example(method=b"GET", url=b"/" + b"a" * 100_000, version=b"HTTP/1.1", end=b"\r\n\r\n")
def test_request_lines(target: Target, method: bytes, url: bytes, version: bytes, end: bytes) -> None:
    assert refused_or_answered(target.send(b" ".join((method, url, version)) + end))
    target.assert_well()


@fuzzing
@given(
    name=st.sampled_from([b"Host", b"Expect", b"Upgrade", b"Content-Type", b"traceparent", b"Content-Encoding", b"X"])
    | st.binary(max_size=20),
    value=st.binary(max_size=100),
    times=st.sampled_from([1, 1, 2, 5000]),
)
@example(name=b"X", value=b"x" * 200_000, times=1)
@example(name=b"Host", value=b"[", times=1)
@example(name=b"Expect", value=b"100-continue", times=1)
def test_headers(target: Target, name: bytes, value: bytes, times: int) -> None:
    assert refused_or_answered(
        target.send(b"GET /api/alive HTTP/1.1\r\n" + (name + b": " + value + b"\r\n") * times + b"\r\n")
    )
    target.assert_well()


SIZES = [b"5", b"0", b"5;a=b", b"-1", b"+5", b"0x5", b"zz", b"", b"ffffffffffffffffffffffff", b"5 ", b"00000005"]


@fuzzing
@given(chunks=st.lists(st.tuples(st.sampled_from(SIZES), st.binary(max_size=10)), max_size=5), ends=st.booleans())
@example(chunks=[(b"5", b"12345")], ends=False)
def test_chunks(target: Target, chunks: list[tuple[bytes, bytes]], ends: bool) -> None:
    body = b"".join(size + b"\r\n" + data + b"\r\n" for size, data in chunks) + (b"0\r\n\r\n" if ends else b"")
    head = b"POST /api/alive HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refused_or_answered(target.send(head + body))
    target.assert_well()


@fuzzing
@given(
    lengths=st.lists(
        st.sampled_from([b"0", b"5", b"10", b"-1", b"+5", b"5_0", b"5.0", b"", b"5, 5", b"9" * 30, b"\xb2", b"0x5"]),
        min_size=1,
        max_size=2,
    ),
    body=st.binary(max_size=20),
)
@example(lengths=[b"10"], body=b"12345")
def test_content_lengths(target: Target, lengths: list[bytes], body: bytes) -> None:
    """More body than announced is the next request; with less, the connection ends in the middle of it."""
    fields = b"".join(b"Content-Length: " + length + b"\r\n" for length in lengths)
    assert refused_or_answered(target.send(b"POST /api/alive HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n" + body))
    target.assert_well()


@fuzzing
@given(
    prefix=st.sampled_from([b"/api/", b"/admin/functions/", b"/runtime/webhooks/EventGrid", MANAGEMENT + b"/"]),
    rest=st.lists(
        st.sampled_from([b"%", b"%0", b"%00", b"%zz", b"%ff", b"%c3%28", b"%2f", b"%2e%2e/", b"%ed%a0%80", b"a", b"?"]),
        max_size=6,
    ).map(b"".join),
    method=st.sampled_from([b"GET", b"POST", b"DELETE"]),
)
def test_percent_signs(target: Target, prefix: bytes, rest: bytes, method: bytes) -> None:
    assert refused_or_answered(target.send(method + b" " + prefix + rest + b" HTTP/1.1\r\nHost: h\r\n\r\n"))
    target.assert_well()


NESTED = b"[" * 40_000 + b"]" * 40_000
NUMBERS = st.sampled_from(["1", "0", "-1", "nan", "inf", "1e999", "9" * 30, "x", "%00", "%ff", ""])


@fuzzing
@given(
    path=st.sampled_from(
        [
            "instances",
            "instances/%ED%A0%80",
            "instances/x/raiseEvent/%ff",
            "instances/x/raiseEvent",
            "orchestrators/naps/%00",
            "orchestrators/naps",
            "orchestrators/none",
            "entities/counter/%ff",
            "entities/none/k",
        ]
    ),
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT"]),
    query=st.dictionaries(
        st.sampled_from(["top", "timeout", "pollingInterval", "runtimeStatus", "createdTimeFrom", "op", "version"]),
        NUMBERS,
        max_size=3,
    ),
    body=st.sampled_from([b"", b"{", b"\xff", b'"\\ud800"', NESTED, b"NaN", b"1" * 9000, b"null"]),
)
@example(path="instances", method="GET", query={"top": "9" * 30}, body=b"")
@example(path="instances/x", method="GET", query={}, body=b"")
@example(path="orchestrators/naps", method="POST", query={}, body=NESTED)
def test_the_management_api(target: Target, path: str, method: str, query: dict[str, str], body: bytes) -> None:
    url = f"{MANAGEMENT.decode()}/{path}?{'&'.join(f'{name}={value}' for name, value in query.items())}"
    head = f"{method} {url} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
    assert refused_or_answered(target.send(head.encode() + body))
    target.assert_well()


@pytest.mark.parametrize("message", ["SubscriptionValidation", "Notification", "x"])
@pytest.mark.parametrize("path", ["/runtime/webhooks/EventGrid?functionName=on_event", "/admin/functions/on_event"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]", b'[{"data": "{"}]', b'[{"data": 1}]', NESTED])
def test_bodies_that_are_no_events(target: Target, message: str, path: str, body: bytes) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\naeg-event-type: {message}\r\nContent-Length: {len(body)}\r\n\r\n"
    statuses = target.send(head.encode() + body)
    assert statuses
    # What is an event for all that the host can tell is the function's to refuse, and then that is a 500.
    assert refused_or_answered(statuses) or (message, body[:3]) == ("Notification", b'[{"')
    target.assert_well()


@fuzzing
@given(cut=st.integers(1, 90))
def test_clients_that_leave_in_the_middle(target: Target, cut: int) -> None:
    request = b"POST /api/alive HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n" + b"x" * 40
    target.send_and_leave(request[:cut])
    target.assert_well()


def test_the_body_limit(target: Target) -> None:
    """Said beforehand or found out on the way, under every kind of address."""
    for path in ("/api/alive", f"{MANAGEMENT.decode()}/orchestrators/naps"):
        assert target.request("POST", path, b"x" * (BODY_LIMIT + 1))[0] == 413
        assert target.request("POST", path, iter([b"x" * BODY_LIMIT, b"x"]))[0] == 413
        target.assert_well()
    assert target.request("POST", "/api/alive", b"x" * BODY_LIMIT)[0] == 200
