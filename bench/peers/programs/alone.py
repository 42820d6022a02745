"""Ratchet's inference service behind uvicorn, without a Functions host: what the protocol itself costs."""

import os
import tempfile
from pathlib import Path

from adapters.blobs import Blob, BlobNotFound
from serving.service import InferenceService

PIPELINE = "flight-delays"


class Folder:
    """The part of the blob store that serving reads, in a directory."""

    def __init__(self, root):
        self.root = Path(root)

    def get(self, path, *, if_match=None):
        try:
            data = (self.root / path).read_bytes()
        except FileNotFoundError as exc:
            raise BlobNotFound(path, f"there is no blob {path}") from exc
        return Blob(data, "1")

    def get_if_changed(self, path, *, etag):
        return None if etag == "1" else self.get(path)


service = InferenceService(
    Folder(os.environ["BENCH_BLOBS"]), Path(tempfile.mkdtemp(prefix="bench-alone-")), 1.0, lambda: (PIPELINE,)
)


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["method"] == "GET":
        answer = service.server_metadata()
    else:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = service.infer(PIPELINE, body)
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
