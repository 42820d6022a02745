"""Loopback ports: the wanted one when it is free, otherwise another, or an error that says whose wish it was."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from devhost.errors import AddressUnavailable, DevhostError

LOOPBACK = "127.0.0.1"
LAST_PORT = 65535
REPLACEMENTS = range(20_000, 32_000)
"""Ports that no system gives to outgoing connections, so that none of those takes one between choice and use."""
TRIES = 1_000
PROBE_SECONDS = 0.5
"""Longest wait for a port to answer; loopback answers or refuses at once, unless its listener hangs."""


BACKLOG = 1024
"""Connections that may wait to be taken."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at this address, on a free port for 0. Raises AddressUnavailable."""
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise AddressUnavailable(host, port, reason) from error


def port_number(text: str) -> int:
    """A port from a command line; 0 stands for a free one. Raises argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal()) or int(text) > LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 0 to {LAST_PORT}")
    return int(text)


class PortTaken(DevhostError):
    """A port that had to be used is in use by another process."""

    def __init__(self, port: int, asked_by: str) -> None:
        super().__init__(
            f"Port {port} ({asked_by}) is in use by another process. Choose another one, "
            f"or see who has it with `lsof -nP -iTCP:{port} -sTCP:LISTEN`."
        )
        self.port = port
        self.asked_by = asked_by


class NoPortFree(DevhostError):
    """Hardly any port of the range for replacements is free."""

    def __init__(self) -> None:
        super().__init__(
            f"No free port was found between {REPLACEMENTS.start} and {REPLACEMENTS.stop - 1}. "
            "Something on this machine holds nearly all of them."
        )


@dataclass(frozen=True, slots=True)
class PortWish:
    """A port that somebody would like. `asked_by` names the part or the option; `firm` wishes get no replacement."""

    asked_by: str
    port: int
    firm: bool = False


@dataclass(frozen=True, slots=True)
class PortChoice:
    """What became of a wish. `moved` says that another port than the wanted one had to be taken."""

    wish: PortWish
    port: int

    @property
    def moved(self) -> bool:
        """Whether the wanted port was taken."""
        return self.port != self.wish.port


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now: nobody answers there, and it can be bound."""
    with socket.socket() as probe:
        # Connecting comes first: macOS lets one bind 127.0.0.1 beside a listener on all interfaces.
        probe.settimeout(PROBE_SECONDS)
        if probe.connect_ex((LOOPBACK, port)) == 0:
            return False
    bound = _bound(port)
    if bound is None:
        return False
    bound.close()
    return True


def free_port() -> int:
    """A port that was free a moment ago. Another process may take it before you do, but none will by chance."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many different ports, as `free_port` gives them."""
    with contextlib.ExitStack() as held:
        return [int(held.enter_context(_any_bound()).getsockname()[1]) for _ in range(count)]


def choose_ports(wishes: Mapping[str, PortWish]) -> dict[str, PortChoice]:
    """One port for each wish, all different. Raises PortTaken when a firm wish cannot be met.

    Firm wishes go first, so that no replacement takes a port that somebody insists on.
    """
    choices: dict[str, PortChoice] = {}
    with contextlib.ExitStack() as held:  # keep what is chosen bound until all are chosen
        for key, wish in sorted(wishes.items(), key=lambda item: not item[1].firm):
            taken_here = any(choice.port == wish.port for choice in choices.values())
            bound = _bound(wish.port) if not taken_here and is_free(wish.port) else None
            if bound is None and wish.firm:
                raise PortTaken(wish.port, wish.asked_by)
            port_socket = held.enter_context(bound if bound is not None else _any_bound(wishes.values()))
            choices[key] = PortChoice(wish, int(port_socket.getsockname()[1]))
    return {key: choices[key] for key in wishes}


def _bound(port: int, *, alone: bool = False) -> socket.socket | None:
    """A socket bound to the port. Not `alone`, it shares with sockets in TIME_WAIT, as a server does, and with ours."""
    candidate = socket.socket()
    if not alone:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind((LOOPBACK, port))
    except OSError:
        candidate.close()
        return None
    return candidate


def _any_bound(avoid: Iterable[PortWish] = ()) -> socket.socket:
    wanted = {wish.port for wish in avoid}
    for _ in range(TRIES):
        port = secrets.choice(REPLACEMENTS)
        if port not in wanted and is_free(port) and (bound := _bound(port, alone=True)) is not None:
            return bound
    raise NoPortFree
