"""Events that are stored before they are sent."""

from __future__ import annotations

import socket
import threading

import pytest

from adapters.background import Background
from adapters.blobs import StorageUnavailable
from adapters.events import ONE_SHORT_TRY, EventRefused, EventsUnavailable, Notice, TopicPublisher
from adapters.outbox import FLUSH_SECONDS, FOLDER, REST_SECONDS, Outbox
from tests.fakes.blobs import MemoryBlobs
from tests.fakes.registry import Listener, at_once


def notice(key: str = "1") -> Notice:
    return Notice("Ratchet.RunStarted", "shops", key, {"run": key, "partitions": 1, "new": 1})


def test_an_event_that_was_taken_leaves_nothing_behind() -> None:
    blobs, listener = MemoryBlobs(), Listener()
    Outbox(blobs, listener, at_once).publish(notice())
    assert listener.heard == [notice()]
    assert blobs.paths() == []


def test_an_event_that_nobody_can_be_handed_waits(caplog: pytest.LogCaptureFixture) -> None:
    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    blobs, listener = MemoryBlobs(), Listener()
    outbox = Outbox(blobs, listener, no_thread)
    outbox.publish(notice())
    assert "can't start new thread" in caplog.text
    assert (outbox.flush(), listener.heard) == (1, [notice()])


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_topic_that_is_away_is_left_alone_for_a_while() -> None:
    clock, listener, tries = Clock(), Listener(), list[str]()

    class Trying(Listener):
        def publish(self, notice: Notice) -> None:
            tries.append(notice.key)
            listener.publish(notice)

    blobs, listener.away = MemoryBlobs(), True
    outbox = Outbox(blobs, Trying(), at_once, clock=clock)
    for key in "123":
        outbox.publish(notice(key))
    listener.away, clock.now = False, REST_SECONDS - 1
    outbox.publish(notice("4"))
    assert tries == ["1"]
    clock.now = REST_SECONDS
    outbox.publish(notice("5"))
    assert tries == ["1", "5"]
    assert outbox.flush() == 4
    assert {each.key for each in listener.heard} == set("12345")


def test_one_look_sends_so_many_and_takes_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, listener = Clock(), Listener()

    class Slow(Listener):
        def publish(self, notice: Notice) -> None:
            clock.now += FLUSH_SECONDS / 2
            listener.publish(notice)

    blobs, listener.away = MemoryBlobs(), True
    outbox = Outbox(blobs, listener, at_once, clock=clock)
    for number in range(7):
        outbox.publish(notice(str(number)))
    listener.away = False
    assert Outbox(blobs, Slow(), at_once, clock=clock).flush() == 3
    monkeypatch.setattr("adapters.outbox.MOST_AT_ONCE", 3)
    assert [outbox.flush(), outbox.flush(), outbox.flush()] == [3, 1, 0]
    assert len(listener.heard) == 7


def test_an_event_that_nobody_wants_or_can_read_keeps_no_other_from_being_sent() -> None:
    class Choosy(Listener):
        def publish(self, notice: Notice) -> None:
            if notice.key == "odd":
                raise EventRefused("413")
            super().publish(notice)

    blobs, listener = MemoryBlobs(), Choosy()
    before = Outbox(blobs, listener, lambda work: None)
    for key in ("1", "odd", "2"):
        before.publish(notice(key))
    outbox = Outbox(blobs, listener, at_once)
    blobs.put(f"{FOLDER}0.json", b'{"type": "Ratchet.Newer", "pipeline": "shops", "key": "3", "data": {}}')
    blobs.put(f"{FOLDER}1.json", b"{")
    assert (outbox.flush(), len(blobs.paths(FOLDER))) == (2, 3)
    outbox.publish(notice("odd"))
    outbox.publish(notice("4"))
    assert {each.key for each in listener.heard} == {"1", "2", "4"}, "the topic is not away for a refusal"


def test_whoever_tells_something_does_not_wait_for_a_topic_that_hangs() -> None:
    goes_on, heard = threading.Event(), threading.Event()

    class Hanging(Listener):
        def publish(self, notice: Notice) -> None:
            assert goes_on.wait(60)
            super().publish(notice)
            if notice.key == "3":
                heard.set()

    blobs, listener = MemoryBlobs(), Hanging()
    outbox = Outbox(blobs, listener, Background("events", most=2))
    for number in range(9):
        outbox.publish(notice(str(number)))
    assert (listener.heard, len(blobs.paths(FOLDER))) == ([], 9)
    goes_on.set()
    outbox.publish(notice("3"))
    outbox.flush()
    assert {each.key for each in listener.heard} == set("012345678")
    assert heard.wait(60)


def test_a_topic_that_takes_connections_and_says_nothing_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(ONE_SHORT_TRY, "read_timeout", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        topic = TopicPublisher(f"http://127.0.0.1:{server.getsockname()[1]}/api/events", "key")
        with pytest.raises(EventsUnavailable, match="timed out"):
            topic.publish(notice())
        server.setblocking(False)
        server.accept()[0].close()
        with pytest.raises(BlockingIOError):
            server.accept()
    assert caplog.messages == [], "one try is one"


def test_an_event_waits_while_the_topic_is_away_and_is_one_event_however_often_it_is_told() -> None:
    blobs, listener = MemoryBlobs(), Listener()
    outbox, listener.away = Outbox(blobs, listener, at_once), True
    outbox.publish(notice())
    outbox.publish(notice())
    outbox.publish(notice("2"))
    assert len(blobs.paths(FOLDER)) == 2
    with pytest.raises(EventsUnavailable):
        outbox.flush()
    listener.away = False
    assert outbox.flush() == 2
    assert sorted(listener.heard, key=lambda heard: heard.key) == [notice(), notice("2")]
    assert (outbox.flush(), blobs.paths()) == (0, [])


def test_an_event_of_a_process_that_died_before_it_was_sent_is_sent_by_another() -> None:
    class Dies(Exception):
        pass

    class Dying(Listener):
        def publish(self, notice: Notice) -> None:
            raise Dies

    blobs, listener = MemoryBlobs(), Listener()
    with pytest.raises(Dies):
        Outbox(blobs, Dying(), at_once).publish(notice())
    assert Outbox(blobs, listener, at_once).flush() == 1
    assert listener.heard == [notice()]


def test_storage_that_is_away_is_told_to_whoever_tells() -> None:
    blobs, listener = MemoryBlobs(), Listener()
    blobs.away = True
    with pytest.raises(StorageUnavailable):
        Outbox(blobs, listener, at_once).publish(notice())
    assert listener.heard == []
