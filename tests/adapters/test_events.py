"""What goes to the topic, as a topic gets it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import jsonschema
import pytest

from adapters.events import EventRefused, EventsUnavailable, Notice, TopicPublisher
from devhost.ports import LOOPBACK

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/events.schema.json").read_text(encoding="utf-8"))
NOTICE = Notice("Ratchet.RunFinished", "shops", "run-1", {"run": "run-1", "outcome": "kept", "sentence": "No better."})


class Topic(HTTPServer):
    """Answers with `status`, and remembers key and body of each request."""

    status = 200
    heard: list[tuple[str, bytes]]


class Handler(BaseHTTPRequestHandler):
    server: Topic

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.headers.get("aeg-sas-key", ""), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def topic() -> Iterator[Topic]:
    with Topic((LOOPBACK, 0), Handler) as server:
        server.heard = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def publish(topic: Topic) -> None:
    TopicPublisher(f"http://{LOOPBACK}:{topic.server_port}/api/events", "the key").publish(NOTICE)


def test_an_event_is_what_the_schema_says_and_has_the_same_id_each_time(topic: Topic) -> None:
    publish(topic)
    publish(topic)
    events = []
    for key, body in topic.heard:
        assert key == "the key"
        (event,) = json.loads(body)
        jsonschema.validate(event, SCHEMA)
        events.append(event)
    assert [event["id"] for event in events] == ["Ratchet.RunFinished-shops-run-1"] * 2
    assert (events[0]["source"], events[0]["subject"]) == ("/ratchet/pipelines/shops", "shops")
    assert events[0]["data"] == NOTICE.data


@pytest.mark.parametrize(
    ("status", "refused"),
    [(400, True), (413, True), (401, False), (404, False), (429, False), (500, False), (503, False)],
)
def test_a_status_speaks_of_the_event_or_of_the_topic(topic: Topic, status: int, refused: bool) -> None:
    topic.status = status
    with pytest.raises(EventsUnavailable) as caught:
        publish(topic)
    assert isinstance(caught.value, EventRefused) == refused
    assert len(topic.heard) == 1, "the outbox is the second try"
    assert "the key" not in str(caught.value)
