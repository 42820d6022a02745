"""Bodies that come and go compressed: gzip and deflate, as HTTP has them (RFC 9110, section 8.4.1)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from models.errors import bounded
from serving.answers import Answer
from serving.errors import BadRequest, BodyTooLarge, UnknownEncoding

GZIP, DEFLATE = "gzip", "deflate"
WINDOW = {GZIP: 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, DEFLATE: zlib.MAX_WBITS}
"""zlib's `wbits` by the encoding's name. HTTP's deflate is the zlib format."""
LEVEL = 1
"""The fastest: an answer of JSON shrinks to a fifth with it, and hardly more with the others."""
SMALLEST = 1024
"""Answers shorter than this travel in one packet anyway."""


def decompressed(body: bytes, encoding: str | None, limit: int) -> bytes:
    """The body as it was before its Content-Encoding. Stops as soon as it has more than `limit` bytes.

    Raises UnknownEncoding, BodyTooLarge, BadRequest.
    """
    name = (encoding or "identity").strip().lower()
    if name in {"identity", ""}:
        return body
    if name not in WINDOW:
        raise UnknownEncoding(f"the content encoding {bounded(name, 40)!r} is not read; gzip and deflate are")
    unpacking = zlib.decompressobj(WINDOW[name])
    try:
        plain = unpacking.decompress(body, limit + 1)
    except zlib.error as exc:
        raise BadRequest(f"the body is not {name}, as its Content-Encoding says: {bounded(exc, 80)}") from exc
    if len(plain) > limit:
        raise BodyTooLarge(f"the body has more than {limit:,} bytes without its compression; no more are taken")
    if not unpacking.eof:
        raise BadRequest(f"the body ends in the middle of its {name} data")
    if unpacking.unused_data:
        raise BadRequest(f"the body goes on after the end of its {name} data")
    return plain


def compressed(answer: Answer, asked: Mapping[str, str]) -> Answer:
    """The answer as the Accept-Encoding among the request's headers, `asked`, wants it."""
    if len(answer.body) < SMALLEST:
        return answer
    accepted = asked.get("accept-encoding")
    name = _preferred(accepted) if accepted else None
    if name is None:
        return answer
    packer = zlib.compressobj(LEVEL, wbits=WINDOW[name])
    body = packer.compress(answer.body) + packer.flush()
    headers = {**answer.headers, "content-encoding": name, "vary": "accept-encoding"}
    return Answer(answer.status, body, headers)


def _preferred(accepted: str) -> str | None:
    """gzip or deflate, whichever is wanted more; None when neither is. Without a weight, 1 counts."""
    weights: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        name, _, parameters = entry.partition(";")
        key, _, value = parameters.strip().partition("=")
        try:
            weights[name.strip()] = float(value) if key.strip() == "q" else 1.0
        except ValueError:
            weights[name.strip()] = 0.0
    other = weights.get("*", 0.0)
    best = max((GZIP, DEFLATE), key=lambda name: weights.get(name, other))
    return best if weights.get(best, other) > 0 else None
