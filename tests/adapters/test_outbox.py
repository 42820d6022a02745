"""Events that are stored before they are sent."""

from __future__ import annotations

import pytest

from adapters.blobs import StorageUnavailable
from adapters.events import EventsUnavailable, Notice
from adapters.outbox import FOLDER, Outbox
from tests.fakes.blobs import MemoryBlobs
from tests.fakes.registry import Listener


def notice(key: str = "1") -> Notice:
    return Notice("Ratchet.RunStarted", "shops", key, {"run": key, "partitions": 1, "new": 1})


def test_an_event_that_was_taken_leaves_nothing_behind() -> None:
    blobs, listener = MemoryBlobs(), Listener()
    Outbox(blobs, listener).publish(notice())
    assert listener.heard == [notice()]
    assert blobs.paths() == []


def test_an_event_waits_while_the_topic_is_away_and_is_one_event_however_often_it_is_told() -> None:
    blobs, listener = MemoryBlobs(), Listener()
    outbox, listener.away = Outbox(blobs, listener), True
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
        Outbox(blobs, Dying()).publish(notice())
    assert Outbox(blobs, listener).flush() == 1
    assert listener.heard == [notice()]


def test_storage_that_is_away_is_told_to_whoever_tells() -> None:
    blobs, listener = MemoryBlobs(), Listener()
    blobs.away = True
    with pytest.raises(StorageUnavailable):
        Outbox(blobs, listener).publish(notice())
    assert listener.heard == []
