"""One queue of Azure Queue Storage, over its REST interface: https://learn.microsoft.com/rest/api/storageservices/."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from xml.sax.saxutils import escape

from yarl import URL

from devhost.storage import Account, Storage, StorageRefused

QUEUE_NOT_FOUND = "QueueNotFound"
FOR_EVER = "-1"
"""As a message's time to live."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was received, and is invisible to others for a while. `text` is as it is stored."""

    id: str
    receipt: str
    dequeue_count: int
    inserted: datetime
    expires: datetime
    next_visible: datetime
    text: str


class Queue:
    """One queue. All methods raise StorageRefused, aiohttp.ClientError and TimeoutError."""

    def __init__(self, storage: Storage, account: Account, name: str) -> None:
        self._storage = storage
        self._account = account
        self._url = f"{account.endpoints['queue']}/{name}"
        self.name = name

    def beside(self, name: str) -> Queue:
        """Another queue of the same account."""
        return Queue(self._storage, self._account, name)

    async def receive(self, count: int, invisible: float) -> Sequence[Message]:
        """Up to `count` messages, hidden from others for `invisible` seconds. None when there is no such queue."""
        query = {"numofmessages": str(count), "visibilitytimeout": str(int(invisible))}
        try:
            answer = await self._storage.request(self._account, "GET", self._at("messages", query))
        except StorageRefused as refusal:
            if refusal.code == QUEUE_NOT_FOUND:
                return ()
            raise
        root = ET.fromstring(answer.body.decode("utf-8-sig"))  # noqa: S314 - from the app's own storage account
        return [_message(element) for element in root.iter("QueueMessage")]

    async def put(self, text: str) -> None:
        """Adds a message, and makes the queue when there is none."""
        body = f"<QueueMessage><MessageText>{escape(text)}</MessageText></QueueMessage>".encode()
        url = self._at("messages", {"messagettl": FOR_EVER})
        try:
            await self._storage.request(self._account, "POST", url, body=body)
        except StorageRefused as refusal:
            if refusal.code != QUEUE_NOT_FOUND:
                raise
            await self._storage.request(self._account, "PUT", URL(self._url, encoded=True))
            await self._storage.request(self._account, "POST", url, body=body)

    async def delete(self, message: Message, receipt: str) -> None:
        """Deletes a received message, with its newest receipt."""
        await self._storage.request(
            self._account, "DELETE", self._at(f"messages/{message.id}", {"popreceipt": receipt})
        )

    async def hide(self, message: Message, receipt: str, seconds: float) -> str:
        """Keeps a received message invisible for so long from now; 0 shows it at once. Gives the newest receipt."""
        query = {"popreceipt": receipt, "visibilitytimeout": str(int(seconds))}
        answer = await self._storage.request(self._account, "PUT", self._at(f"messages/{message.id}", query))
        return answer.headers["x-ms-popreceipt"]

    def _at(self, path: str, query: dict[str, str]) -> URL:
        return URL(f"{self._url}/{path}", encoded=True).with_query(query)


def encode(content: bytes | str, *, base64_text: bool) -> str:
    """The text that stands for this content in a queue. Raises UnicodeDecodeError for bytes that are no text."""
    data = content.encode() if isinstance(content, str) else content
    return base64.b64encode(data).decode() if base64_text else data.decode()


def decode(text: str, *, base64_text: bool) -> bytes:
    """The content that this text in a queue stands for. Raises ValueError when it is not base64 and should be."""
    if not base64_text:
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("the message is not base64") from error


def _message(element: ET.Element) -> Message:
    def value(name: str) -> str:
        return element.findtext(name) or ""

    return Message(
        id=value("MessageId"),
        receipt=value("PopReceipt"),
        dequeue_count=int(value("DequeueCount")),
        inserted=parsedate_to_datetime(value("InsertionTime")),
        expires=parsedate_to_datetime(value("ExpirationTime")),
        next_visible=parsedate_to_datetime(value("TimeNextVisible")),
        text=value("MessageText"),
    )
