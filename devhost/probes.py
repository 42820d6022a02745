"""Readiness: ways to ask a process on loopback whether it can work yet."""

from __future__ import annotations

import http.client
import socket
import urllib.request
from collections.abc import Callable
from http import HTTPStatus

from devhost.ports import LOOPBACK

PROBE_SECONDS = 2.0
"""Longest wait for one answer."""

type Probe = Callable[[], bool]
"""Whether the process is ready now. Returns within a few seconds and does not raise."""


def http_probe(url: str) -> Probe:
    """A probe that is satisfied by status 200 at `url`."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business on loopback

    def probe() -> bool:
        try:
            with opener.open(url, timeout=PROBE_SECONDS) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except (OSError, http.client.HTTPException):  # refused, reset, timed out, another status, half an answer
            return False

    return probe


def port_probe(*ports: int) -> Probe:
    """A probe that is satisfied when every one of the loopback ports accepts a connection."""

    def probe() -> bool:
        for port in ports:
            try:
                socket.create_connection((LOOPBACK, port), timeout=PROBE_SECONDS).close()
            except OSError:
                return False
        return True

    return probe
