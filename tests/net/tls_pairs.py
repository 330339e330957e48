"""Both ends of a TLS connection in one thread, for what takes one of them over."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.certificates import Certificate

__all__ = ["TLSPair", "make_pair", "shake_hands"]


class TLSPair(NamedTuple):
    """A server's object and its client, both done with the handshake; the client never blocks."""

    server: Any
    client: ssl.SSLSocket

    def feed(self, data: bytes) -> int:
        """Send from the client as much as goes, and return how much that was."""
        sent = 0
        try:
            while sent < len(data):
                sent += self.client.send(data[sent : sent + 16384])
        except ssl.SSLWantWriteError:
            pass
        return sent

    def read(self) -> bytes:
        """Return what has come for the client; at the end `b""`, or an error if it was cut."""
        data = b""
        try:
            while piece := self.client.recv(65536):
                data += piece
        except ssl.SSLWantReadError:
            if not data:
                raise
        return data


def shake_hands(*sides: Any) -> None:
    for side in sides:
        side.settimeout(0)
    waiting = list(sides)
    for _ in range(100):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
        if not waiting:
            return
    msg = "no handshake"
    raise AssertionError(msg)


def make_pair(
    certificate: Certificate,
    ends: tuple[socket.socket, socket.socket] | None = None,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    **options: Any,
) -> TLSPair:
    one, other = ends or socket.socketpair()
    client_context = certificate.client()
    client_context.minimum_version = client_context.maximum_version = version
    server = certificate.server().wrap_socket(
        one, server_side=True, do_handshake_on_connect=False, **options
    )
    client = client_context.wrap_socket(
        other,
        server_hostname="127.0.0.1",
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
    )
    shake_hands(server, client)
    server.settimeout(None)
    assert server.version() == version.name.replace("_", ".")
    return TLSPair(server, client)
